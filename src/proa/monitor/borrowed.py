"""The engine's side of a launcher that the nursery has lent for an exec (`lent`)."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import msgspec

from proa.errors import TimedOut, from_record
from proa.linux.sockets import receive_fds, send_fds
from proa.monitor.protocol import RECEIVE_BYTES, ExecRequest, ExecTarget, LentExec, encode_line
from proa.monitor.records import ExecState

__all__ = ["BorrowedLauncher"]

START_TIMEOUT_S = 60.0
KILLED = 128 + signal.SIGKILL

_decoder = msgspec.json.Decoder(dict[str, Any])


class BorrowedLauncher:
    """Starts one exec (`order`, then `outcome`), and watches it until its end or until the monitor does; then `ended`.

    Its events are `exec-exit`, as a monitor's, and `handed-over`: then the monitor tells of the end.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._state: ExecState | None = None
        self._pidfd = -1
        self.ended = False

    def order(self, request: ExecRequest, target: ExecTarget, client_fd: int | None) -> bool:
        """Ask for the process; False when it is not to be had here: an order too long, or a launcher that was killed.

        With `client_fd` the client is attached before the process runs, without it the output is dropped.
        """
        fds = [] if client_fd is None else [client_fd]
        order = encode_line(LentExec(exec=request, target=target, fds=len(fds)))
        if len(order) > RECEIVE_BYTES:
            return False
        try:
            send_fds(self._channel, order, fds)
        except OSError:
            return False
        return True

    def outcome(self, *, wait: bool = True) -> dict[str, Any] | None:
        """What became of the order: {"pid", "start_time"} of the process; None when the launcher was killed before.

        Raises NotFound (command-not-found), Denied, Conflict, TimedOut …, and BlockingIOError when it is not known yet
        and not waited for.
        """
        self._channel.settimeout(START_TIMEOUT_S if wait else 0)
        try:
            data, received = receive_fds(self._channel, 1 << 18)
        except BlockingIOError:
            raise
        except TimeoutError as error:
            raise TimedOut("the command was not started in time", code="launcher-slow") from error
        except OSError:
            return None
        if not data:
            return None
        answer = _decoder.decode(data)
        if "error" in answer:
            raise from_record(answer["error"])
        self._state = msgspec.convert(answer["ok"], ExecState)
        (self._pidfd,) = received
        self._channel.setblocking(False)
        return {"pid": self._state.pid, "start_time": self._state.start_time}

    def fileno(self) -> int:
        """Readable when an event came or the launcher ended."""
        return self._channel.fileno()

    def pending_events(self) -> list[dict[str, Any]]:
        """The event, if it is here. A launcher that was killed takes its process along: let it be true what is said."""
        try:
            data = self._channel.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.ended = True
        if data:
            return [_decoder.decode(data)]
        assert self._state is not None
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._state.status, self._state.signal = KILLED, signal.SIGKILL
        return [self._state.exit_event()]

    def close(self) -> None:
        """Let it go; what it runs goes on."""
        self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
