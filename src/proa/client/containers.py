"""The collection of containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from proa.client.calls import (
    collect,
    collect_run,
    decode,
    exchange,
    filters_text,
    opened,
    registry_headers,
    transfer,
)
from proa.client.container import AsyncContainer, Container, ContainerCore
from proa.client.creation import Creation, creation
from proa.client.failures import image_is_missing, stream_failure
from proa.client.flow import (
    AsyncTransport,
    Awaiting,
    Blocking,
    Channel,
    EndInput,
    Flow,
    Open,
    Request,
    Transport,
    Write,
    operation,
    shaped,
)
from proa.client.http import query, quote
from proa.client.models import ListedContainer, PruneResult, RunResult
from proa.client.names import split_tag
from proa.errors import Conflict, NotFound, ProaError, Unavailable

__all__ = ["AsyncContainers", "Containers", "pull_flow"]

C = TypeVar("C", bound="ContainerCore[Any]")
T = TypeVar("T")


class ContainersCore(Generic[C]):
    """The operations of the collection."""

    _container: ClassVar[type[Any]]

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    @operation
    def get(self, name: str) -> Flow[C]:
        """The container of this name, id or beginning of an id.

        Raises NotFound when there is none.
        """
        return (yield from self._get(name))

    @operation
    def list(self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None) -> Flow[list[C]]:  # noqa: A002
        """Running containers, or all of them; `filters` are Docker's (`{"label": ["a=b"]}`)."""
        body = yield from exchange("GET", f"/containers/json{query(all=all, filters=filters_text(filters))}")
        found = []
        for entry in decode(body, list[ListedContainer]):
            try:
                found.append((yield from self._get(entry.id)))
            except NotFound:
                continue  # gone since
        return found

    @operation
    def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Flow[PruneResult]:
        """Remove all stopped containers."""
        body = yield from exchange("POST", f"/containers/prune{query(filters=filters_text(filters))}")
        record = decode(body, dict[str, Any])
        return PruneResult(record.get("ContainersDeleted") or [], int(record.get("SpaceReclaimed") or 0))

    def _get(self, name: str) -> Flow[C]:
        body = yield from exchange("GET", f"/containers/{quote(name)}/json")
        container: C = self._container(self._transport, body)
        return container

    def _create_id(self, wanted: Creation) -> Flow[str]:
        target = f"/containers/create{query(name=wanted.name, platform=wanted.platform)}"
        body = yield from self._with_image(wanted, lambda: exchange("POST", target, wanted.document))
        return str(decode(body, dict[str, Any])["Id"])

    def _with_image(self, wanted: Creation, create: Callable[[], Flow[T]]) -> Flow[T]:
        """`create`, its image pulled first or when it is missing, as is wanted."""
        image = wanted.document["Image"]
        if wanted.pull == "always":
            yield from pull_flow(image, wanted.platform)
        try:
            return (yield from create())
        except NotFound as error:
            if wanted.pull != "missing" or not image_is_missing(error):
                raise
        yield from pull_flow(image, wanted.platform)
        return (yield from create())

    def _create(self, wanted: Creation) -> Flow[C]:
        wanted.document["HostConfig"]["AutoRemove"] = bool(wanted.auto_remove)
        identity = yield from self._create_id(wanted)
        return (yield from self._get(identity))

    def _run_detached(self, wanted: Creation) -> Flow[C]:
        container = yield from self._create(wanted)
        try:
            yield from exchange("POST", f"/containers/{container.id}/start")
        except ProaError:
            if wanted.auto_remove:
                yield from self._discard(container.id)
            raise
        try:
            return (yield from self._get(container.id))
        except NotFound:
            return container  # removed itself already

    def _run(self, wanted: Creation) -> Flow[RunResult]:
        removes = wanted.auto_remove is not False
        wanted.document["HostConfig"]["AutoRemove"] = removes
        if wanted.input is None and not wanted.document["Tty"]:
            try:
                return (yield from self._run_at_once(wanted))
            except NotFound as error:
                if error.message != "page not found":  # of another engine
                    raise
        return (yield from self._run_in_steps(wanted, removes=removes))

    def _run_at_once(self, wanted: Creation) -> Flow[RunResult]:
        """By one request. Input, which is to be written only when the container runs, would not know when."""
        target = f"/proa/v1/containers/run{query(name=wanted.name, platform=wanted.platform)}"
        request = Request("POST", target, msgspec.json.encode(wanted.document), upgrade=True)
        channel: Channel = yield from self._with_image(wanted, lambda: opened(request))
        stdout, stderr, told, status = yield from collect_run(channel)
        error = stream_failure(decode(told, dict[str, Any])) if told else None
        if error is not None:
            raise error
        if status is None:
            raise Unavailable(
                "the engine ended before the container did",
                code="engine-gone",
                hint="the container goes on: look for it",
            )
        return RunResult(status, stdout, stderr)

    def _run_in_steps(self, wanted: Creation, *, removes: bool) -> Flow[RunResult]:
        tty = bool(wanted.document["Tty"])
        path = f"/containers/{yield from self._create_id(wanted)}"
        streams = query(stream=True, stdin=wanted.input is not None, stdout=True, stderr=True)
        attached = yield Open(Request("POST", f"{path}/attach{streams}", upgrade=True))
        try:
            try:
                waiting = yield from self._start(path, "removed" if removes else "next-exit")
            except ProaError:
                if removes:
                    yield from self._discard(path.rpartition("/")[2])
                raise
            try:
                if wanted.input:
                    yield Write(attached, wanted.input)
                if wanted.input is not None:
                    yield EndInput(attached)
                stdout, stderr = yield from collect(attached, tty=tty)
                body, _ = yield from collect(waiting, tty=True)
            finally:
                waiting.close()
        finally:
            attached.close()
        return RunResult(int(decode(body, dict[str, Any])["StatusCode"]), stdout, stderr)

    def _start(self, path: str, condition: str) -> Flow[Channel]:
        """Start it; the channel tells of its end."""
        waiting: Channel = yield Open(Request("POST", f"{path}/wait{query(condition=condition)}"))
        try:
            yield from exchange("POST", f"{path}/start")
        except BaseException:
            waiting.close()
            raise
        return waiting

    def _discard(self, identity: str) -> Flow[None]:
        try:
            yield from exchange("DELETE", f"/containers/{identity}?force=1")
        except (NotFound, Conflict):
            pass  # the engine is about it itself

    create = shaped(
        creation,
        _create,
        "Create a container without starting it.\n\n"
        "    Raises NotFound for an unknown image, Conflict when the name is taken.",
    )
    run = shaped(
        creation,
        _run,
        "Run a command in a new container and wait for its end and its output.\n\n"
        "    Raises as `create` and `Container.start`, Exhausted when it writes more than 256 MiB.",
    )
    run_detached = shaped(
        creation,
        _run_detached,
        "Create and start a container and leave it running.\n\n    Raises as `create` and `Container.start`.",
    )


def pull_flow(image: str, platform: str) -> Flow[None]:
    """Pull an image without telling about it."""
    repository, tag = split_tag(image, "latest")
    target = f"/images/create{query(fromImage=repository, tag=tag, platform=platform)}"
    headers = yield from registry_headers(image)
    yield from transfer(Request("POST", target, headers=headers), None)


class Containers(ContainersCore[Container], Blocking):
    """`client.containers`."""

    _transport: Transport
    _container = Container


class AsyncContainers(ContainersCore[AsyncContainer], Awaiting):
    """`client.containers`."""

    _transport: AsyncTransport
    _container = AsyncContainer
