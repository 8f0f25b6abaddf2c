"""Small flows that others are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from proa.client.failures import stream_failure
from proa.client.flow import Channel, Exchange, Flow, Item, Open, Read, Request, Stream
from proa.client.frames import STDERR, STDOUT, SYSTEM_ERROR, Demultiplexer
from proa.client.http import query
from proa.client.models import Output, Progress
from proa.client.names import has_registry
from proa.errors import Corrupt, Exhausted, NotFound

__all__ = [
    "collect",
    "collect_run",
    "decode",
    "download",
    "exchange",
    "filters_text",
    "gathered",
    "json_stream",
    "opened",
    "outputs",
    "registry_headers",
    "transfer",
]

T = TypeVar("T")

MAX_OUTPUT_BYTES = 256 << 20
MAX_LINE_BYTES = 16 << 20


def decode(body: bytes, kind: type[T]) -> T:
    """A document as a type. Raises Corrupt when it is not one."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Corrupt(f"the engine's answer is not what it should be: {error}", code="bad-reply") from None


def exchange(
    method: str, target: str, document: Any = None, *, headers: tuple[tuple[str, str], ...] = ()
) -> Flow[bytes]:
    """One call with a JSON document; returns the reply's body."""
    body = b"" if document is None else msgspec.json.encode(document)
    reply = yield Exchange(Request(method, target, body, headers=headers))
    result: bytes = reply.body
    return result


def download(request: Request) -> Stream[bytes]:
    """The body of a reply, piece by piece as it comes."""
    channel = yield Open(request)
    try:
        while data := (yield Read(channel)):
            yield Item(data)
    finally:
        channel.close()


def filters_text(filters: Mapping[str, Sequence[str]] | None) -> str | None:
    """The `filters` parameter."""
    return msgspec.json.encode({k: list(v) for k, v in filters.items()}).decode() if filters else None


def registry_headers(image: str, name: str = "X-Registry-Auth") -> Flow[tuple[tuple[str, str], ...]]:
    """The credentials for an image's registry; which one a short name means, the engine knows.

    Raises Invalid when Docker's configuration cannot be read.
    """
    from proa.client.credentials import auth_header  # subprocess and tempfile take 20 ms

    if not has_registry(image):
        try:
            body = yield from exchange("GET", f"/proa/v1/reference{query(name=image)}")
            image = str(decode(body, dict[str, Any])["Name"])
        except NotFound:
            pass  # another engine, which means Docker Hub
    return (auth_header(image, name),)


def headers_of_all_registries() -> Flow[tuple[tuple[str, str], ...]]:
    """The credentials for the registries that the engine's images come from. Raises as `registry_headers`."""
    from proa.client.credentials import headers_of_places

    body = yield from exchange("GET", "/proa/v1/repositories")
    return headers_of_places(decode(body, dict[str, list[str]])["Repositories"])


def outputs(channel: Channel, *, tty: bool) -> Stream[Output]:
    """What a process writes, until its end; with a terminal everything is stdout. Closes the channel."""
    demultiplexer = Demultiplexer()
    try:
        while data := (yield Read(channel)):
            if tty:
                yield Item(Output("stdout", data))
                continue
            for number, piece in demultiplexer.feed(data):
                yield Item(Output("stderr" if number >= STDERR else "stdout", piece))
    finally:
        channel.close()


def opened(request: Request) -> Flow[Channel]:
    """The channel that a request opens."""
    channel: Channel = yield Open(request)
    return channel


def collect(channel: Channel, *, tty: bool) -> Flow[tuple[bytes, bytes]]:
    """All of stdout and stderr. Raises Exhausted beyond 256 MiB. Closes the channel."""
    streams = yield from _collect(channel, None if tty else Demultiplexer())
    return streams[STDOUT], streams[STDERR] + streams[SYSTEM_ERROR]


def collect_run(channel: Channel) -> Flow[tuple[bytes, bytes, bytes, int | None]]:
    """All of stdout and stderr, what the engine tells of a failure, and the exit status. As `collect`."""
    demultiplexer = Demultiplexer()
    streams = yield from _collect(channel, demultiplexer)
    return streams[STDOUT], streams[STDERR], streams[SYSTEM_ERROR], demultiplexer.exit_status


def _collect(channel: Channel, demultiplexer: Demultiplexer | None) -> Flow[list[bytes]]:
    """Everything, by the number of its stream."""
    pieces: list[list[bytes]] = [[] for _ in range(SYSTEM_ERROR + 1)]
    size = 0
    try:
        while data := (yield Read(channel)):
            size += len(data)
            if size > MAX_OUTPUT_BYTES:
                raise Exhausted(f"the process wrote more than {MAX_OUTPUT_BYTES} bytes", code="output-too-long")
            for number, piece in demultiplexer.feed(data) if demultiplexer is not None else ((STDOUT, data),):
                pieces[number].append(piece)
    finally:
        channel.close()
    return [b"".join(each) for each in pieces]


def json_stream(request: Request, kind: type[T]) -> Stream[T]:
    """The documents of a reply that holds one per line."""
    channel = yield Open(request)
    rest = b""
    try:
        while data := (yield Read(channel)):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise Corrupt("a line of the engine's stream has no end", code="bad-reply")
            for line in lines:
                if line.strip():
                    yield Item(decode(line, kind))
        if rest.strip():
            yield Item(decode(rest, kind))
    finally:
        channel.close()


def gathered(items: Stream[T], each: Callable[[T], None] | None = None) -> Flow[list[T]]:
    """Run a stream inside a flow: its values as a list, or handed to `each` one by one."""
    found: list[T] = []
    value: Any = None
    try:
        while True:
            step = items.send(value)
            if not isinstance(step, Item):
                value = yield step
                continue
            value = None
            if each is None:
                found.append(step.value)
            else:
                each(step.value)
    except StopIteration:
        return found
    finally:
        items.close()


def transfer(request: Request, progress: Callable[[Progress], None] | None) -> Flow[list[dict[str, Any]]]:
    """Run a pull, push, load or import; returns its records but the steps of transfers, which go to `progress`.

    Raises the failure it reports.
    """
    records: list[dict[str, Any]] = []

    def take(record: dict[str, Any]) -> None:
        error = stream_failure(record)
        if error is not None:
            raise error
        if "progressDetail" not in record or "aux" in record:
            records.append(record)
        if progress is not None:
            progress(_progress(record))

    yield from gathered(json_stream(request, dict[str, Any]), take)
    return records


def _progress(record: dict[str, Any]) -> Progress:
    detail = record.get("progressDetail") or {}
    status = str(record.get("status") or record.get("stream") or "")
    return Progress(status, str(record.get("id") or ""), int(detail.get("current") or 0), int(detail.get("total") or 0))
