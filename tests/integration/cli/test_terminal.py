"""run -it in a pseudo-terminal: size, resize, raw keys, detach keys, control characters."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import engines
import pytest

pytestmark = pytest.mark.root


class Terminal:
    """A person at a terminal who runs one command."""

    def __init__(self, engine: engines.PrivateEngine, *arguments: str, rows: int = 31, columns: int = 97) -> None:
        self.fd, theirs = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.process = subprocess.Popen(
            [engines.PROA, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=engine.env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = self.all = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            piece = os.read(self.fd, 65536).decode(errors="replace")
            self.seen += piece
            self.all += piece
        self.seen = self.seen.partition(text)[2]

    def ends(self) -> int:
        """Exit status; the terminal must be as it was."""
        status = self.process.wait(20)
        assert termios.tcgetattr(self.theirs) == self.before
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self.theirs)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


RUN = ("run", "-it", "--rm", "--network", "none")


def test_a_shell_has_our_size_and_follows_it(shared: engines.PrivateEngine, terminals: list[Terminal]) -> None:
    terminal = Terminal(shared, *RUN, "busybox", "sh")
    terminals.append(terminal)
    terminal.expect("# ")
    terminal.type("stty size\n")
    terminal.expect("31 97")
    terminal.resize(40, 120)
    for _ in range(50):
        terminal.type("stty size\n")
        terminal.expect("stty size")
        terminal.expect("# ")
        if "40 120" in terminal.seen:
            break
        time.sleep(0.05)
        terminal.type("stty size; echo do''ne\n")
        terminal.expect("done")
        terminal.type("stty size; [ \"$(stty size)\" = '40 120' ] && echo fo''llowed; echo do''ne\n")
        terminal.expect("done")
    terminal.type("[ \"$(stty size)\" = '40 120' ] && echo fo''llowed\n")
    terminal.expect("followed")
    terminal.type("exit 6\n")
    assert terminal.ends() == 6


def test_ctrl_c_goes_to_the_foreground_process(shared: engines.PrivateEngine, terminals: list[Terminal]) -> None:
    terminal = Terminal(shared, *RUN, "busybox", "sh")
    terminals.append(terminal)
    terminal.expect("# ")
    terminal.type("sleep 100\n")
    terminal.expect("sleep 100")
    time.sleep(0.2)
    terminal.type("\x03")
    terminal.expect("# ")
    terminal.type("echo sta''tus $?\n")
    terminal.expect("status 130")
    terminal.type("\x04")
    assert terminal.ends() == 0


def test_detach_keys_leave_the_container_running(shared: engines.PrivateEngine, terminals: list[Terminal]) -> None:
    terminal = Terminal(shared, "run", "-it", "--name", "left", "--network", "none", "busybox", "sh")
    terminals.append(terminal)
    terminal.expect("# ")
    terminal.type("\x10")
    time.sleep(0.1)
    terminal.type("\x11")
    assert terminal.ends() == 0
    assert shared.out("ps", "--format", "{{.Names}}", "--filter", "name=left") == "left"

    again = Terminal(shared, "attach", "--detach-keys", "ctrl-x,x", "left", rows=20, columns=50)
    terminals.append(again)
    time.sleep(0.3)
    again.type("stty size\n")
    again.expect("20 50")
    again.type("\x18x")
    assert again.ends() == 0
    assert shared.out("ps", "--format", "{{.Names}}", "--filter", "name=left") == "left"
    shared.proa("rm", "-f", "left")


def test_exec_has_a_terminal_too(shared: engines.PrivateEngine, terminals: list[Terminal]) -> None:
    shared.proa("run", "-d", "--name", "host-of-exec", "--network", "none", "busybox", "sleep", "100")
    terminal = Terminal(shared, "exec", "-it", "host-of-exec", "sh", rows=22, columns=66)
    terminals.append(terminal)
    terminal.expect("# ")
    terminal.type("stty size; tty\n")
    terminal.expect("22 66")
    terminal.expect("/dev/pts/")
    terminal.type("exit 4\n")
    assert terminal.ends() == 4
    shared.proa("rm", "-f", "host-of-exec")


def test_t_with_a_pipe_as_input_is_refused(shared: engines.PrivateEngine) -> None:
    done = shared.proa("run", "-it", "--rm", "busybox", "sh", stdin=b"x", check=False)
    assert done.returncode == 125
    assert "the input device is not a TTY" in done.stderr.decode()
    assert shared.out("run", "-t", "--rm", "--network", "none", "busybox", "sh", "-c", "tty; stty size").startswith(
        "/dev/"
    )


def test_a_table_fits_and_cannot_command_the_terminal(shared: engines.PrivateEngine, terminals: list[Terminal]) -> None:
    evil = "sh -c 'echo \x1b[2J\x9b'"
    name = "n" * 60
    shared.proa("create", "--name", name, "-l", "k=\x1b[31mred", "busybox", *evil.split())
    terminal = Terminal(shared, "ps", "-a", "--no-trunc", "--filter", f"name={name}", columns=90)
    terminals.append(terminal)
    terminal.expect("NAMES")
    terminal.expect("Created")
    terminal.expect("\r\n")
    text = terminal.all
    assert terminal.process.wait(20) == 0
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert all(len(line) <= 90 for line in text.splitlines())
    piped = shared.out("ps", "-a", "--no-trunc", "--filter", f"name={name}")
    assert name in piped
    shared.proa("rm", name)
