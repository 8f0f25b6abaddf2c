"""One process's stdin, stdout, stderr or terminal: pumped to the log and to every attached client.

`Streams` is the same for the container's init and for each exec (which has no log). Reading stops while any attached
client is blocked; input is read from clients only while the process takes it. Memory per process: what one read
returned and one socket or pipe did not take.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from functools import partial

from proa.linux import tty as terminal
from proa.monitor.attach import Client
from proa.monitor.logs import LineLog
from proa.monitor.loop import READ, WRITE, Loop
from proa.monitor.protocol import Attach

__all__ = ["Streams"]

CHUNK_BYTES = 128 << 10
# A pipe that was found full is bulk output: a bigger one saves wake-ups on both sides.
BULK_PIPE_BYTES = 512 << 10
_READS_PER_TURN = 16
# Logging what one read gave takes a millisecond; who asks for something meanwhile is not to wait for sixteen.
_LOGGED_READS_PER_TURN = 3
# What may wait for a slow client once the process has ended: both pipes, full.
DRAIN_BACKLOG_BYTES = 4 * BULK_PIPE_BYTES
_FRAME = struct.Struct(">B3xI")
_NUMBERS = {"stdout": 1, "stderr": 2}
_EXIT_NUMBER = 4

# One buffer for every read, private and untouched (so without memory) until the first byte moves: a frame head that
# ends at the first page boundary, output, and apart from it input, which may be read while output is being sent.
_scratch = mmap.mmap(-1, 4096 + 2 * CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
_memory = memoryview(_scratch)
_framed = _memory[4096 - _FRAME.size : 4096 + CHUNK_BYTES]
_payload = _memory[4096 : 4096 + CHUNK_BYTES]
_input = _memory[4096 + CHUNK_BYTES :]


def release_memory() -> None:
    """Give the pages of the read buffer back to the kernel."""
    _scratch.madvise(mmap.MADV_DONTNEED)


class Streams:
    """The monitor's ends of one process's standard streams.

    outputs: descriptor -> "stdout" or "stderr"; stdin_fd: -1 for none. All are made non-blocking and are owned.
    on_detach: called after a client left by the detach keys; `on_end`, when set, once every output has ended; `on_lost`
    when a client has gone whose leaving ends the process.
    """

    def __init__(
        self,
        loop: Loop,
        outputs: dict[int, str],
        stdin_fd: int,
        *,
        tty: bool = False,
        stdin_once: bool = False,
        log: LineLog | None = None,
        on_detach: Callable[[], None] | None = None,
    ) -> None:
        self.on_end: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.tty = tty
        self.input_space = _input
        self.backlog_bytes = 0
        self._loop = loop
        self._outputs = outputs
        self._stdin_fd = stdin_fd
        self._stdin_once = stdin_once
        self._stdin_pending = b""
        self._log = log
        self._on_detach = on_detach
        self._clients: list[Client] = []
        self._leaving: list[Client] = []
        self._paused = False
        self._bulk: set[int] = set()
        for fd in (*outputs, stdin_fd):
            if fd >= 0:
                os.set_blocking(fd, False)
        self._listen()

    @property
    def stdin_open(self) -> bool:
        """True while the process's stdin can take input, now or later."""
        return self._stdin_fd >= 0

    @property
    def stdin_ready(self) -> bool:
        """True when clients may be read: stdin is open and took everything so far."""
        return self._stdin_fd >= 0 and not self._stdin_pending

    @property
    def ended(self) -> bool:
        """True when every output reached its end."""
        return not self._outputs

    @property
    def idle(self) -> bool:
        """True when no client is attached or still being flushed."""
        return not self._clients and not self._leaving

    def attach(self, fd: int, how: Attach) -> Client:
        """Join a client's socket, which is owned from now on; raises OSError when it is no socket."""
        client = Client(self._loop, self, fd, how)
        self._clients.append(client)
        client.update()
        if how.held:
            self._pause()
            for name, text in self._log.unfinished.items() if self._log is not None else ():
                if name in client.wants:
                    client.send(memoryview(text if self.tty else _FRAME.pack(_NUMBERS[name], len(text)) + text))
        if how.early:
            client.receive_early(how.early)
        return client

    def detach(self, client: Client, *, by_keys: bool = False) -> None:
        """End one attach; what was already written for the client is still flushed."""
        if client in self._clients:
            self._clients.remove(client)
            self._leaving.append(client)
            client.finish()
            self.unblock()
            if by_keys and self._on_detach is not None:
                self._on_detach()
            if client.ends_exec and not by_keys and self.on_lost is not None:
                self.on_lost()

    def closed(self, client: Client) -> None:
        """A client's socket is closed."""
        for group in (self._clients, self._leaving):
            if client in group:
                group.remove(client)
        self.unblock()

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; raises OSError."""
        for fd in self._outputs:
            terminal.set_window_size(fd, rows, columns)
            return

    def drain(self) -> bool:
        """The process ended: read on regardless of slow clients. Returns True when every output reached its end.

        What is left is bounded by the pipes' capacity. False means that somebody else still holds the other end.
        """
        self.backlog_bytes = DRAIN_BACKLOG_BYTES
        if self._held():
            return False  # whoever replays the log to it would read there, too, what is read now
        self._paused = False
        for fd in tuple(self._outputs):
            if not self._paused:
                self._pump(fd)
        if not self._paused:
            self._listen()
        return not self._outputs

    def _held(self) -> bool:
        return any(client.held for client in self._clients)

    def settle(self) -> None:
        """Nothing happens at the moment: let the log do what it put off."""
        if self._log is not None:
            self._log.settle()

    def finish(self, status: int | None = None) -> None:
        """No more output comes: close the streams, end the log, flush and close the clients.

        status: the process's exit status, for clients that want to be told.
        """
        self.on_end = self.on_lost = None
        for fd in tuple(self._outputs):
            if self._held():  # for too long
                self._pump(fd)
            if fd in self._outputs:
                self._end(fd)
        self.close_stdin()
        if self._log is not None:
            self._log.close()
            self._log = None
        for client in tuple(self._clients):
            if client.tells_end and status is not None:
                digits = b"%d" % status
                client.send(memoryview(_FRAME.pack(_EXIT_NUMBER, len(digits)) + digits))
            self.detach(client)

    # -- output ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        for fd in self._outputs:
            self._loop.watch(fd, READ, partial(self._pump, fd))

    def _pump(self, fd: int, _events: int = 0) -> None:
        name = self._outputs.get(fd)
        if name is None:
            return
        self._loop.busy()
        target = (_payload,)
        for _ in range(_READS_PER_TURN if self._log is None else _LOGGED_READS_PER_TURN):
            try:
                count = os.readv(fd, target)
            except BlockingIOError:
                return
            except OSError:  # EIO: the last one to hold the terminal closed it
                count = 0
            if count == 0:
                self._end(fd)
                return
            if self._log is not None:
                self._log.write(name, bytes(_payload[:count]))
            if self._clients:
                self._broadcast(name, count)
                if self._paused:
                    return
            if count >= 65536 and not self.tty and fd not in self._bulk:
                self._bulk.add(fd)
                try:
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, BULK_PIPE_BYTES)
                except OSError:
                    pass  # a limit of the user's; the default size works as well

    def _broadcast(self, name: str, count: int) -> None:
        if self.tty:
            chunk = _payload[:count]
        else:
            _FRAME.pack_into(_framed, 0, _NUMBERS[name], count)
            chunk = _framed[: _FRAME.size + count]
        blocked = False
        for client in tuple(self._clients):
            if name in client.wants:
                client.send(chunk)
                blocked = blocked or client.blocked
        if blocked:
            self._pause()

    def _pause(self) -> None:
        self._paused = True
        for fd in self._outputs:
            self._loop.forget(fd)

    def unblock(self) -> None:
        """A client took what waited for it or left: read on when it was the last blocked one."""
        if self._paused and not any(client.blocked for client in self._clients):
            self._paused = False
            self._listen()

    def _end(self, fd: int) -> None:
        name = self._outputs.pop(fd)
        self._loop.close(fd)
        if self._log is not None:
            self._log.finish(name)
        if not self._outputs and self.on_end is not None:
            self.on_end()

    # -- input -------------------------------------------------------------------------------------------------

    def feed(self, chunk: memoryview) -> None:
        """Write a client's input to the process; what it does not take now waits and stops all clients' input."""
        if self._stdin_fd < 0:
            return
        if self._stdin_pending:  # only input that came early, of a client that joins while another is typing
            self._stdin_pending += chunk
            return
        try:
            written = os.write(self._stdin_fd, chunk)
        except BlockingIOError:
            written = 0
        except OSError:
            self.close_stdin()
            return
        if written < len(chunk):
            self._stdin_pending = bytes(chunk[written:])
            self._loop.watch(self._stdin_fd, WRITE, self._stdin_writable)
            self._update_clients()

    def input_ended(self) -> bool:
        """A client's input ended. Closes the process's stdin if that was its only writer-to-be.

        Returns False when the attach should end instead, as Docker does without stdin_once and for terminals.
        """
        if self._stdin_once and not self.tty:
            self.close_stdin()
            return True
        return False

    def close_stdin(self) -> None:
        """Close the process's stdin; input still waiting for it is dropped."""
        if self._stdin_fd >= 0:
            fd, self._stdin_fd = self._stdin_fd, -1
            self._stdin_pending = b""
            self._loop.close(fd)
            self._update_clients()

    def _stdin_writable(self, _events: int) -> None:
        try:
            written = os.write(self._stdin_fd, self._stdin_pending)
        except BlockingIOError:
            return
        except OSError:
            self.close_stdin()
            return
        self._stdin_pending = self._stdin_pending[written:]
        if not self._stdin_pending:
            self._loop.forget(self._stdin_fd)
            self._update_clients()

    def _update_clients(self) -> None:
        for client in tuple(self._clients):
            if not client.gone:
                client.update()
            elif self._stdin_fd < 0:
                self.detach(client)
            elif not self._stdin_pending:
                client.drain_input()
