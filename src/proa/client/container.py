"""One container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from proa.client.calls import collect, decode, exchange, gathered, outputs
from proa.client.container_files import FilesCore
from proa.client.flow import (
    AsyncTransport,
    Awaiting,
    Blocking,
    EndInput,
    Flow,
    Open,
    Request,
    Stream,
    Transport,
    Write,
    operation,
    stream,
)
from proa.client.http import query, quote
from proa.client.life import LifeCore
from proa.client.models import ContainerDetails, ExecResult, Health, Output
from proa.client.names import split_tag
from proa.client.sessions import AsyncSession, Session

__all__ = ["AsyncContainer", "Container", "ContainerCore"]

S = TypeVar("S", Session, AsyncSession)


class ContainerCore(LifeCore, FilesCore, Generic[S]):
    """The operations of a container."""

    _session: ClassVar[type[Any]]

    def __init__(self, transport: Any, body: bytes) -> None:
        self._transport = transport
        self._take(body)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:12]} {self.name} {self.status}>"

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.details.id

    @property
    def name(self) -> str:
        """The name, without a slash."""
        return self.details.name.removeprefix("/")

    @property
    def status(self) -> str:
        """created, running, paused, restarting, exited or dead: as of the last `reload`."""
        return self.details.state.status

    @property
    def health(self) -> Health | None:
        """What its healthcheck found, None without one: as of the last `reload`."""
        return self.details.state.health

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return self.details.config.labels or {}

    @property
    def raw(self) -> dict[str, Any]:
        """The whole inspect document, as of the last `reload`."""
        document: dict[str, Any] = msgspec.json.decode(self._body)
        return document

    @operation
    def reload(self) -> Flow[ContainerDetails]:
        """Ask for the state of now.

        Raises NotFound when the container is gone.
        """
        self._take((yield from exchange("GET", f"{self._path}/json")))
        return self.details

    @operation
    def logs(
        self,
        *,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
    ) -> Flow[bytes]:
        """What it wrote so far, both streams in order.

        tail: only that many last lines; since, until: seconds since 1970.
        Raises Exhausted beyond 256 MiB: use `follow_logs(follow=False)` for more.
        """
        target = _log_target(self._path, False, stdout, stderr, tail, since, until, timestamps)
        channel = yield Open(Request("GET", target))
        pieces = yield from gathered(outputs(channel, tty=self.details.config.tty))
        return b"".join([piece.data for piece in pieces])

    @stream
    def follow_logs(
        self,
        *,
        follow: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
    ) -> Stream[Output]:
        """What it wrote and, with `follow`, writes until it ends, piece by piece."""
        target = _log_target(self._path, follow, stdout, stderr, tail, since, until, timestamps)
        channel = yield Open(Request("GET", target))
        yield from outputs(channel, tty=self.details.config.tty)

    @operation
    def exec(
        self,
        command: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        user: str = "",
        workdir: str = "",
        env: Mapping[str, str] | None = None,
        privileged: bool = False,
    ) -> Flow[ExecResult]:
        """Run a command in it and wait for its end.

        Raises Conflict when the container does not run, NotFound or Denied when the command cannot be found or
        executed, Exhausted when it writes more than 256 MiB.
        """
        stdin = input is not None
        path = yield from self._create_exec(command, stdin, user, workdir, env, privileged, tty=False)
        channel = yield Open(_exec_start(path, tty=False))
        try:
            if input:
                yield Write(channel, input)
            if stdin:
                yield EndInput(channel)
            stdout, stderr = yield from collect(channel, tty=False)
        finally:
            channel.close()
        body = yield from exchange("GET", f"{path}/json")
        return ExecResult(int(decode(body, dict[str, Any]).get("ExitCode") or 0), stdout, stderr)

    @stream
    def exec_stream(
        self,
        command: Sequence[str],
        *,
        user: str = "",
        workdir: str = "",
        env: Mapping[str, str] | None = None,
        privileged: bool = False,
    ) -> Stream[Output]:
        """Run a command in it and give its output piece by piece. Raises as `exec`."""
        path = yield from self._create_exec(command, False, user, workdir, env, privileged, tty=False)
        channel = yield Open(_exec_start(path, tty=False))
        yield from outputs(channel, tty=False)

    @operation
    def open_exec(
        self,
        command: Sequence[str],
        *,
        tty: bool = False,
        user: str = "",
        workdir: str = "",
        env: Mapping[str, str] | None = None,
        privileged: bool = False,
        end_with_client: bool = False,
    ) -> Flow[S]:
        """Start a command in it and converse with it; `end_with_client`: it ends with the session. Raises as `exec`."""
        path = yield from self._create_exec(
            command, True, user, workdir, env, privileged, tty=tty, end_with_client=end_with_client
        )
        channel = yield Open(_exec_start(path, tty=tty))
        session: S = self._session(self._transport, channel, path=path, tty=tty)
        return session

    @operation
    def attach(self, *, stdin: bool = True, logs: bool = False) -> Flow[S]:
        """Converse with its process; `logs` gives first what it wrote before."""
        target = f"{self._path}/attach{query(stream=True, stdin=stdin, stdout=True, stderr=True, logs=logs)}"
        channel = yield Open(Request("POST", target, upgrade=True))
        session: S = self._session(self._transport, channel, path=self._path, tty=self.details.config.tty)
        return session

    @operation
    def commit(
        self,
        name: str = "",
        *,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> Flow[str]:
        """Make an image of its file system; returns the image's id.

        name: `repository[:tag]`, or empty for an image without a name
        changes: Dockerfile instructions such as `CMD ["sh"]`
        """
        repository, tag = split_tag(name) if name else ("", "")
        target = query(
            container=self.id, repo=repository, tag=tag, comment=message, author=author, pause="1" if pause else "0"
        )
        target += "".join(f"&changes={quote(change)}" for change in changes)
        body = yield from exchange("POST", f"/commit{target}", {})
        return str(decode(body, dict[str, Any])["Id"])

    @property
    def _path(self) -> str:
        return f"/containers/{self.id}"

    def _take(self, body: bytes) -> None:
        self._body = body
        self.details = decode(body, ContainerDetails)

    def _create_exec(
        self,
        command: Sequence[str],
        stdin: bool,
        user: str,
        workdir: str,
        env: Mapping[str, str] | None,
        privileged: bool,
        *,
        tty: bool,
        end_with_client: bool = False,
    ) -> Flow[str]:
        document = {
            "Cmd": list(command),
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "User": user,
            "WorkingDir": workdir,
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "Privileged": privileged,
            "EndWithClient": end_with_client,
        }
        body = yield from exchange("POST", f"{self._path}/exec", document)
        return f"/exec/{decode(body, dict[str, Any])['Id']}"


def _exec_start(path: str, *, tty: bool) -> Request:
    body = msgspec.json.encode({"Detach": False, "Tty": tty})
    return Request("POST", f"{path}/start", body, upgrade=True)


def _log_target(
    path: str,
    follow: bool,
    stdout: bool,
    stderr: bool,
    tail: int | None,
    since: float | None,
    until: float | None,
    timestamps: bool,
) -> str:
    return f"{path}/logs" + query(
        follow=follow,
        stdout=stdout,
        stderr=stderr,
        tail="all" if tail is None else str(tail),
        since=None if since is None else f"{since:.9f}",
        until=None if until is None else f"{until:.9f}",
        timestamps=timestamps,
    )


class Container(ContainerCore[Session], Blocking):
    """A container; `details` is its state as of the last `reload`."""

    _transport: Transport
    _session = Session


class AsyncContainer(ContainerCore[AsyncSession], Awaiting):
    """A container whose operations are awaited; `details` is its state as of the last `reload`."""

    _transport: AsyncTransport
    _session = AsyncSession
