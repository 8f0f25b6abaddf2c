"""A blob as it comes from a registry: a body whose range and length were checked before the first byte is used."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Self

from urllib3.response import BaseHTTPResponse

from proa.errors import Corrupt
from proa.oci import Descriptor
from proa.transfer.failures import registry_failure
from proa.transfer.transport import Transport

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


class RemoteStream:
    """The body of a blob's GET; see ends.Stream."""

    def __init__(self, transport: Transport, reply: BaseHTTPResponse, offset: int) -> None:
        self.offset = offset
        self._reply = reply
        self._reading = transport.reading(reply)
        self._reading.__enter__()
        self._open = True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes. Raises Unavailable, TimedOut, Cancelled."""
        try:
            # One recv each: a read of exactly `size` would lose what came before the connection broke.
            return self._reply.read1(size if size >= 0 else None)
        except BaseException as e:
            self._leave(e)
            raise AssertionError("unreachable") from e

    def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        self._leave(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        if self._open:
            self._open = False
            if error is None:
                self._reading.__exit__(None, None, None)
            elif not self._reading.__exit__(type(error), error, error.__traceback__):
                raise error


def blob_stream(transport: Transport, reply: BaseHTTPResponse, descriptor: Descriptor, offset: int) -> RemoteStream:
    """The body of the reply to a GET of a blob from `offset` on. Raises Corrupt, and what the reply says went wrong."""
    start = 0
    why = ""
    if reply.status == 206 and offset:
        covers = reply.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(covers)
        start = int(found[1]) if found else -1
        if found is None or not 0 <= start <= offset or found[3] not in ("*", str(descriptor.size)):
            why = f"answered a request for bytes {offset}- with range {covers[:60]!r}"
    elif reply.status != 200:
        refusal = transport.finish(reply)
        raise registry_failure(refusal, f"cannot get blob {descriptor.digest}", descriptor.digest)
    length = reply.headers.get("Content-Length", "")
    if not why and _LENGTH.fullmatch(length) and int(length) != descriptor.size - start:
        why = f"has {int(length) + start} bytes, {descriptor.size} were promised"
    if why:
        reply.close()
        raise Corrupt(
            f"blob {descriptor.digest} {why}",
            code="size-mismatch",
            subject=descriptor.digest,
        )
    if reply.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        reply.close()
        raise Corrupt(f"blob {descriptor.digest} is served encoded, although identity was asked for")
    return RemoteStream(transport, reply, start)
