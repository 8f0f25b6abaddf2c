"""Push one blob: look, mount, or upload and begin again when it breaks (distribution-spec, "Pushing blobs").

HEAD blob                 200 -> there already
POST uploads/?mount&from  201 -> mounted;  202 Location -> upload there
PUT  Location?digest=     201 -> done;     anything temporary -> the next try starts at POST
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

from proa.errors import TimedOut, Unauthorized, Unavailable
from proa.oci import Descriptor, Digest, Verifier
from proa.transfer.endpoint import Endpoint
from proa.transfer.ends import Advance, Stream
from proa.transfer.failures import registry_failure
from proa.transfer.transport import CHUNK, RETRIED, TRIES, retry_after_s
from proa.transfer.wire import HttpReply

# A blob from its beginning, as often as it takes.
Opens = Callable[[], Stream | BinaryIO]


class Outcome(NamedTuple):
    """Whether bytes were sent, and the repository a blob was mounted from."""

    sent: bool
    mounted_from: str | None = None


class _Body:
    """A blob as a request body: counts, and never sends more or other bytes than were promised."""

    def __init__(self, stream: Stream | BinaryIO, descriptor: Descriptor, advance: Advance) -> None:
        self._stream = stream
        self._verifier = Verifier(descriptor.digest, descriptor.size)
        self._advance = advance

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes; raises Corrupt when the blob is not what its descriptor says."""
        data = self._stream.read(size if size and size > 0 else CHUNK)
        if data:
            self._verifier.update(data)
            self._advance(self._verifier.size)
        else:
            self._verifier.finish()
        return data


def push_blob(
    endpoint: Endpoint,
    repository: str,
    descriptor: Descriptor,
    opens: Opens,
    advance: Advance,
    scopes: Sequence[str],
    mount_from: str | None = None,
) -> Outcome:
    """Make `repository` have the blob. Raises Unauthorized, Denied, Unavailable, TimedOut, Corrupt, Cancelled."""
    base = f"/{repository}/blobs"
    if endpoint.call("HEAD", f"{base}/{descriptor.digest}", scopes).status == 200:
        return Outcome(sent=False)
    for tried in range(TRIES):
        mount = mount_from if mount_from != repository and not tried else None
        reply = _begin(endpoint, base, descriptor.digest, scopes, mount)
        if reply.status == 201 and mount:
            return Outcome(sent=False, mounted_from=mount)
        if reply.status != 202 or not reply.headers.get("location"):
            raise registry_failure(reply, f"cannot begin to push blob {descriptor.digest}", descriptor.digest)
        try:
            done = _send(endpoint, base, reply, descriptor, opens, advance, scopes)
        except (Unavailable, TimedOut) as e:
            if tried + 1 == TRIES or not e.fields.get("temporary"):
                raise
            endpoint.transport.pause(tried)
            continue
        if done.status in (200, 201, 204):
            return Outcome(sent=True)
        if tried + 1 == TRIES or not (done.status in RETRIED or done.status in (401, 404)):
            raise registry_failure(done, f"cannot push blob {descriptor.digest}", descriptor.digest)
        # 401: the token ended during the upload. 404: the session is gone. Both are healed by a new session.
        endpoint.transport.pause(tried, retry_after_s(done.headers.get("retry-after", "")))
    raise AssertionError("unreachable")


def _begin(endpoint: Endpoint, base: str, digest: Digest, scopes: Sequence[str], mount: str | None) -> HttpReply:
    if mount:
        query = urlencode({"mount": digest, "from": mount})
        try:
            reply = endpoint.call("POST", f"{base}/uploads/?{query}", scopes, headers={"Content-Length": "0"})
        except Unauthorized:
            reply = HttpReply(401)  # no right to read there: upload instead
        if reply.status in (201, 202):
            return reply
    return endpoint.call("POST", f"{base}/uploads/", scopes, headers={"Content-Length": "0"})


def _send(
    endpoint: Endpoint,
    base: str,
    session: HttpReply,
    descriptor: Descriptor,
    opens: Opens,
    advance: Advance,
    scopes: Sequence[str],
) -> HttpReply:
    url = endpoint.url(session.headers["location"], endpoint.api(f"{base}/uploads/"))
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, urlencode({"digest": descriptor.digest})) if part)
    url = urlunsplit(parts._replace(query=query))
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
    with opens() as stream:
        body = _Body(stream, descriptor, advance)
        return endpoint.upload("PUT", url, scopes, body, headers)  # type: ignore[arg-type]
