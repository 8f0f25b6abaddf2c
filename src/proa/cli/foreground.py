"""Staying with a process in a container: its signals, its terminal's size, its exit status."""

from __future__ import annotations

from time import sleep

from proa.client.caller import Caller
from proa.client.connection import Connection
from proa.client.http import query
from proa.client.jsonlite import loads
from proa.errors import Corrupt, Internal, ProaError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.cli.session import DetachKeys
    from proa.client.endpoint import Endpoint

__all__ = ["Outcome", "SignalProxy", "carry", "exit_status_of_start", "follow_size", "require_terminal"]

# Job control (TSTP, TTIN, TTOU) stays ours: the shell must be able to stop the command line itself.
_PROXIED = ((1, "HUP"), (2, "INT"), (3, "QUIT"), (10, "USR1"), (12, "USR2"), (14, "ALRM"), (15, "TERM"), (18, "CONT"))
_SIGWINCH = 28
_ATTEMPTS = 100
_ATTEMPT_S = 0.02


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


def carry(
    attaching: Connection,
    outcome: Outcome,
    endpoint: Endpoint,
    path: str,
    *,
    tty: bool,
    stdin: bool,
    keys: DetachKeys | None,
) -> int:
    """Carry an attached container's streams until it ends or the user detaches; its exit status, 0 when detached."""
    from proa.cli.session import converse
    from proa.client.frames import Demultiplexer

    if not tty:
        ended = converse(attaching, demultiplexer=Demultiplexer(), stdin=0 if stdin else None, watched=outcome)
    else:
        from proa.cli.terminal import RawTerminal

        with RawTerminal(0):
            follow_size(endpoint, path)
            ended = converse(attaching, demultiplexer=None, stdin=0 if stdin else None, keys=keys, watched=outcome)
    attaching.close()
    if not ended:
        outcome.forget()
        return 0
    return outcome.status()


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


class Outcome:
    """The pending wait for how a container ends, begun again at the next engine when this one goes away."""

    def __init__(self, endpoint: Endpoint, container: str, condition: str) -> None:
        self._endpoint = endpoint
        self._container = container
        self._condition = condition
        self._failure: ProaError | None = None
        self._waiting = self._begin(condition)

    def begun(self) -> None:
        """Return once the engine has taken note: it answers with the head at once. Raises what it refuses with."""
        self._waiting = Caller(self._endpoint).reply(self._waiting)

    def fileno(self) -> int:
        """For poll; another one after each `ready`."""
        return self._waiting.fileno()

    def ready(self) -> bool:
        """Something has come: take it in; whether more is to be watched for."""
        try:
            return not self._waiting.take_in()
        except (Unavailable, Corrupt):
            return self._begin_again()

    def status(self) -> int:
        """Wait for the end; returns the exit status. Raises Internal when nobody knows it any more."""
        while self._failure is None:
            try:
                record = loads(self._waiting.body())
            except (Unavailable, Corrupt):
                self._begin_again()
                continue
            finally:
                self._waiting.close()
            error = record.get("Error") or {}
            if error.get("Message"):
                raise Internal(str(error["Message"]), code="wait-failed")
            return int(record["StatusCode"])
        raise Internal(
            f"the exit status of {self._container[:12]} is not known, as its engine went away: {self._failure.message}",
            code="exit-status-lost",
        )

    def forget(self) -> None:
        """Wait no longer."""
        self._waiting.close()

    def _begin(self, condition: str) -> Connection:
        connection = Connection.open(self._endpoint)
        connection.send("POST", f"/containers/{self._container}/wait{query(condition=condition)}")
        return connection

    def _begin_again(self) -> bool:
        """At the next engine; it may have ended meanwhile, so the next exit is the wrong one to wait for."""
        self._waiting.close()
        condition = "removed" if self._condition == "removed" else "not-running"
        for _ in range(_ATTEMPTS):
            try:
                self._waiting = self._begin(condition)
                self.begun()
                return True
            except ProaError as error:
                failure = error
                if error.code != "engine-gone":
                    break
            sleep(_ATTEMPT_S)  # a dying engine still took the connection
        self._failure = failure
        return False


def exit_status_of_start(error: ProaError) -> int:
    """125, or 126 and 127 when the reason is that the command could not be executed or found."""
    from proa.cli.failures import EXIT_OF_CODE

    if error.code != error.kind:
        return EXIT_OF_CODE.get(error.code, 125)
    text = error.message  # other engines give no code: their words are all there is
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 125
