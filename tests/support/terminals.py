"""A program in a pseudo-terminal, typed at and read like a person would."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence


class Terminal:
    """Runs `command` with a new terminal of `size` (rows, columns) as its controlling one."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], size: tuple[int, int]) -> None:
        self.master, slave = os.openpty()
        self.resize(size)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = b""

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def _read(self, seconds: float) -> bool:
        """More output into `seen`; False at its end."""
        assert select.select([self.master], [], [], max(seconds, 0))[0], f"nothing came; seen: {self.seen!r}"
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            data = b""
        self.seen += data
        return bool(data)

    def expect(self, text: bytes, seconds: float = 20) -> bytes:
        """Wait until `text` has been printed since the last expect; returns, and forgets, what came before it."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert self._read(deadline - time.monotonic()), (text, self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    def expect_more(self, seconds: float = 20) -> bool:
        """Wait for some output, whichever; False at its end."""
        return self._read(seconds)

    def resize(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def end(self, seconds: float = 20) -> int:
        """Read to the end and wait for the program; its exit status."""
        deadline = time.monotonic() + seconds
        try:
            while self._read(deadline - time.monotonic()):
                pass
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.master)
