"""Staying with a process in a container: its signals, its terminal's size, its exit status."""

from __future__ import annotations

from proa.client.caller import Caller
from proa.client.connection import Connection
from proa.client.http import query
from proa.client.jsonlite import loads
from proa.errors import Corrupt, Internal, NotFound, ProaError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.client.endpoint import Endpoint

__all__ = ["SignalProxy", "exit_status_of_start", "exit_status", "follow_size", "require_terminal"]

# Job control (TSTP, TTIN, TTOU) stays ours: the shell must be able to stop the command line itself.
_PROXIED = ((1, "HUP"), (2, "INT"), (3, "QUIT"), (10, "USR1"), (12, "USR2"), (14, "ALRM"), (15, "TERM"), (18, "CONT"))
_SIGWINCH = 28
_WAIT_ATTEMPTS = 5


def _on_signal(number: int, act: Callable[[int, Any], None]) -> None:
    import _signal  # type: ignore[import-not-found, unused-ignore]  # the signal module costs 4 ms for its enums

    _signal.signal(number, act)


class SignalProxy:
    """Passes the signals this process gets on to a container; what comes before it runs is kept until `started`."""

    def __init__(self, endpoint: Endpoint, container: str) -> None:
        self._endpoint = endpoint
        self._container = container
        self._waiting: list[str] | None = []
        for number, _ in _PROXIED:
            _on_signal(number, self._take)

    def started(self) -> None:
        """The container runs: deliver what came before, and everything from now on at once."""
        waiting, self._waiting = self._waiting or [], None
        for name in waiting:
            self._deliver(name)

    def _take(self, number: int, _: Any) -> None:
        name = dict(_PROXIED)[number]
        if self._waiting is None:
            self._deliver(name)
        else:
            self._waiting.append(name)

    def _deliver(self, name: str) -> None:
        try:
            Caller(self._endpoint).fetch("POST", f"/containers/{self._container}/kill{query(signal=name)}")
        except ProaError:
            pass  # it has just ended: its exit status says so


def follow_size(endpoint: Endpoint, target: str, fd: int = 1) -> None:
    """Tell the engine this terminal's size, now and whenever it changes; `target` is `/containers/ID` or `/exec/ID`."""
    from proa.cli.terminal import size

    def tell(*_: Any) -> None:
        rows, columns = size(fd)
        if rows and columns:
            try:
                Caller(endpoint).fetch("POST", f"{target}/resize{query(h=rows, w=columns)}")
            except ProaError:
                pass  # ended meanwhile

    _on_signal(_SIGWINCH, tell)
    tell()


def require_terminal(*, tty: bool, interactive: bool) -> None:
    """Raises Invalid when a terminal is to be typed at but stdin is none."""
    from proa.cli.terminal import is_terminal
    from proa.errors import Invalid

    if tty and interactive and not is_terminal(0):
        raise Invalid(
            "the input device is not a TTY", code="not-a-terminal", hint="leave out -t to use a pipe as input"
        )


def exit_status(waiting: Connection, endpoint: Endpoint, container: str, condition: str) -> int:
    """The exit status that a pending wait brings; waits again at the next engine when this one goes away.

    Raises Internal when the container is gone and nobody knows its status.
    """
    for attempt in range(_WAIT_ATTEMPTS):
        try:
            if attempt:
                waiting = Connection.open(endpoint)
                waiting.send("POST", f"/containers/{container}/wait{query(condition=condition)}")
                Caller(endpoint).reply(waiting)
            record = loads(waiting.body())
        except (Unavailable, Corrupt, ValueError):
            continue
        except NotFound:
            break
        finally:
            waiting.close()
        error = record.get("Error") or {}
        if error.get("Message"):
            raise Internal(str(error["Message"]), code="wait-failed")
        return int(record["StatusCode"])
    raise Internal(f"the exit status of {container} is not known: the engine went away", code="exit-status-lost")


def exit_status_of_start(error: ProaError) -> int:
    """125, or 126 and 127 when the reason is that the command could not be executed or found."""
    from proa.cli.failures import EXIT_OF_CODE

    if error.code in EXIT_OF_CODE:
        return EXIT_OF_CODE[error.code]
    text = error.message  # other engines give no code: their words are all there is
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 125
