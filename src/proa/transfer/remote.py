"""An image in a registry, as source and sink (distribution-spec, "Pull" and "Push")."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from urllib3.response import BaseHTTPResponse

from proa.errors import Cancelled, Corrupt, Invalid, ProaError, Unsupported
from proa.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    Reference,
    Verifier,
    digest_of,
    media_types,
    parse_digest,
    strict_loads,
)
from proa.transfer.auth import check_credentials_server
from proa.transfer.credentials import Credentials
from proa.transfer.endpoint import Endpoint
from proa.transfer.ends import Advance, Source
from proa.transfer.failures import registry_failure, resolve_failure
from proa.transfer.transport import CERTS_DIR, TRIES, Transport
from proa.transfer.upload import push_blob
from proa.transfer.wire import HttpReply

ACCEPT = ", ".join([*media_types.INDEXES, *media_types.MANIFESTS])
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


class Remote:
    """Source and sink for one reference.

    credentials: for the reference's registry; credentials that name another server are not used
    plain_http:  True: http only. False: https only. None: http for a registry on this machine, https for others
    insecure:    allow plain http when https does not answer
    mirrors:     hosts (or http:// / https:// origins) asked first when reading; they get no credentials
    mount_from:  for a blob to push, a repository of the same registry that may have it already
    Raises what ends.Source and ends.Sink say.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        plain_http: bool | None = None,
        *,
        insecure: bool = False,
        mirrors: Sequence[str] = (),
        mount_from: Mapping[Digest, str] | None = None,
        allowed_realms: Collection[str] = (),
        certs_dir: Path = CERTS_DIR,
        transport: Transport | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        self.reference = reference
        self._transport = transport or Transport(certs_dir=certs_dir, stopped=stopped)
        self._own = Endpoint(
            reference.registry,
            self._transport,
            check_credentials_server(credentials, reference.registry),
            plain_http=plain_http,
            insecure=insecure,
            allowed_realms=allowed_realms,
        )
        self._mirrors = [_mirror(text, self._transport) for text in mirrors]
        self._mount_from = dict(mount_from or {})
        self._mounted: dict[Digest, str] = {}
        self._documents: dict[Digest, bytes] = {}
        self._repository = f"/v2/{reference.repository}"

    def resolve(self) -> Descriptor:
        """Ask what the reference names: HEAD, or GET where the registry's HEAD says too little."""
        failure: ProaError | None = None
        for endpoint in self._readable():
            try:
                return self._resolve_at(endpoint)
            except (Cancelled, Unsupported):
                raise
            except ProaError as e:
                failure = e  # the last one, from the registry itself, is what the user should see
        assert failure is not None
        raise failure

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or index by digest, or a config blob; verified."""
        if (known := self._documents.get(descriptor.digest)) is not None:
            return known
        manifest = media_types.is_manifest(descriptor.media_type) or media_types.is_index(descriptor.media_type)
        limit = MANIFEST_LIMIT if manifest else CONFIG_LIMIT
        if descriptor.size > limit:
            raise Invalid(
                f"{descriptor.digest} has {descriptor.size} bytes, at most {limit} are accepted",
                code="too-large",
                subject=descriptor.digest,
            )
        path = f"{self._repository}/{'manifests' if manifest else 'blobs'}/{descriptor.digest}"
        failure: ProaError | None = None
        for endpoint in self._readable():
            try:
                headers = {"Accept": ACCEPT} if manifest else {}
                reply = endpoint.call("GET", path, self._pull, headers=headers, limit=limit)
                if reply.status != 200:
                    raise registry_failure(reply, f"cannot get {descriptor.digest}", descriptor.digest)
                verifier = Verifier(descriptor.digest, descriptor.size)
                verifier.update(reply.body)
                verifier.finish()
                if manifest and (served := _media_type(reply)) and served != descriptor.media_type:
                    raise Invalid(
                        f"{descriptor.digest} was announced as {descriptor.media_type} and served as {served[:100]!r}",
                        code="document-invalid",
                        subject=descriptor.digest,
                    )
                return reply.body
            except Cancelled:
                raise
            except ProaError as e:
                failure = e
        assert failure is not None
        raise failure

    def open(self, descriptor: Descriptor, offset: int = 0) -> RemoteStream:
        """GET a blob, the rest of it by Range when `offset` is not zero."""
        path = f"{self._repository}/blobs/{descriptor.digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        failure: ProaError | None = None
        for endpoint in self._readable():
            try:
                reply = endpoint.open(path, self._pull, headers)
                return self._stream(reply, descriptor, offset)
            except Cancelled:
                raise
            except ProaError as e:
                failure = e
        assert failure is not None
        raise failure

    def pause(self, tried: int, failure: ProaError) -> bool:
        """Back off between tries of one blob, or wait for as long as the registry asked."""
        if tried + 1 >= TRIES:
            return False
        self._transport.pause(tried, failure.fields.get("retry_after_s"))
        return True

    def exists(self, descriptor: Descriptor) -> bool:
        """HEAD."""
        kind = "manifests" if _is_document(descriptor.media_type) else "blobs"
        headers = {"Accept": ACCEPT} if kind == "manifests" else {}
        reply = self._own.call("HEAD", f"{self._repository}/{kind}/{descriptor.digest}", self._push, headers=headers)
        return reply.status == 200

    def write(self, descriptor: Descriptor, source: Source, advance: Advance) -> bool:
        """Push a blob unless the registry has it or can mount it; a broken upload begins again from the start."""
        outcome = push_blob(
            self._own,
            self.reference.repository,
            descriptor,
            source,
            advance,
            self._push,
            self._mount_from.get(descriptor.digest),
        )
        if outcome.mounted_from:
            self._mounted[descriptor.digest] = outcome.mounted_from
        return outcome.sent

    def mounted_from(self, digest: Digest) -> str | None:
        """The repository a pushed blob was mounted from, if it was."""
        return self._mounted.get(digest)

    def put(self, descriptor: Descriptor, raw: bytes) -> None:
        """PUT a manifest by digest."""
        self._put(descriptor, raw, descriptor.digest)

    def tag(self, descriptor: Descriptor, raw: bytes) -> None:
        """PUT the root manifest by the reference's tag: the last act of a push."""
        self._put(descriptor, raw, self.reference.tag or descriptor.digest)

    def stop(self) -> None:
        """See ends."""
        self._transport.stopped.set()
        self._transport.abort()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    @property
    def _pull(self) -> tuple[str, ...]:
        return (f"repository:{self.reference.repository}:pull",)

    @property
    def _push(self) -> tuple[str, ...]:
        mounts = tuple(f"repository:{name}:pull" for name in sorted(set(self._mount_from.values())))
        return (f"repository:{self.reference.repository}:pull,push", *mounts)

    def _readable(self) -> list[Endpoint]:
        return [*self._mirrors, self._own]

    def _resolve_at(self, endpoint: Endpoint) -> Descriptor:
        path = f"{self._repository}/manifests/{self.reference.object}"
        reply = endpoint.call("HEAD", path, self._pull, headers={"Accept": ACCEPT})
        if reply.status == 200:
            media_type = _media_type(reply)
            self._refuse_schema1(media_type)
            digest, length = reply.headers.get("docker-content-digest", ""), reply.headers.get("content-length", "")
            if _is_document(media_type) and digest and _LENGTH.fullmatch(length):
                if self.reference.digest and digest != self.reference.digest:
                    raise Corrupt(
                        f"{self.reference.familiar} was asked for and {digest[:160]} answered",
                        code="digest-mismatch",
                        subject=self.reference.familiar,
                    )
                return Descriptor(media_type=media_type, digest=parse_digest(digest), size=int(length))
        # A HEAD failure has no body to explain it, and some proxies allow no HEAD: GET tells.
        reply = endpoint.call("GET", path, self._pull, headers={"Accept": ACCEPT}, limit=MANIFEST_LIMIT)
        if reply.status != 200:
            raise resolve_failure(reply, self.reference)
        found = digest_of(reply.body)
        if self.reference.digest:
            verifier = Verifier(self.reference.digest)
            verifier.update(reply.body)
            found = verifier.finish()
        media_type = _media_type(reply)
        if not _is_document(media_type):
            media_type = _media_type_inside(reply.body)
        self._refuse_schema1(media_type)
        self._documents[found] = reply.body
        return Descriptor(media_type=media_type, digest=found, size=len(reply.body))

    def _refuse_schema1(self, media_type: str) -> None:
        if media_type in media_types.SCHEMA1:
            raise Unsupported(
                f"{self.reference.familiar} is in the image manifest schema 1, which is not supported",
                code="schema1",
                subject=self.reference.familiar,
                hint="push the image again with a current client",
            )

    def _stream(self, reply: BaseHTTPResponse, descriptor: Descriptor, offset: int) -> RemoteStream:
        start = 0
        why = ""
        if reply.status == 206 and offset:
            covers = reply.headers.get("Content-Range", "")
            found = _CONTENT_RANGE.fullmatch(covers)
            start = int(found[1]) if found else -1
            if found is None or not 0 <= start <= offset or found[3] not in ("*", str(descriptor.size)):
                why = f"answered a request for bytes {offset}- with range {covers[:60]!r}"
        elif reply.status != 200:
            refusal = self._transport.finish(reply)
            raise registry_failure(refusal, f"cannot get blob {descriptor.digest}", descriptor.digest)
        length = reply.headers.get("Content-Length", "")
        if not why and _LENGTH.fullmatch(length) and int(length) != descriptor.size - start:
            why = f"has {int(length) + start} bytes, {descriptor.size} were promised"
        if why:
            reply.close()
            raise Corrupt(
                f"blob {descriptor.digest} of {self.reference.familiar} {why}",
                code="size-mismatch",
                subject=descriptor.digest,
            )
        if reply.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            reply.close()
            raise Corrupt(f"blob {descriptor.digest} is served encoded, although identity was asked for")
        return RemoteStream(self._transport, reply, start)

    def _put(self, descriptor: Descriptor, raw: bytes, name: str) -> None:
        reply = self._own.call(
            "PUT",
            f"{self._repository}/manifests/{name}",
            self._push,
            headers={"Content-Type": descriptor.media_type},
            body=raw,
        )
        if reply.status not in (200, 201, 202, 204):
            raise registry_failure(reply, f"cannot push manifest {name} of {self.reference.familiar}", name)
        accepted = reply.headers.get("docker-content-digest")
        if accepted and accepted != descriptor.digest and accepted.partition(":")[0] == "sha256":
            raise Corrupt(
                f"the registry stored manifest {descriptor.digest} as {accepted[:160]}",
                code="digest-mismatch",
                subject=descriptor.digest,
            )


def _is_document(media_type: str) -> bool:
    return media_types.is_manifest(media_type) or media_types.is_index(media_type)


def _media_type(reply: HttpReply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()


def _media_type_inside(raw: bytes) -> str:
    """What a manifest says it is, for registries that serve it as plain JSON."""
    value = strict_loads(raw, MANIFEST_LIMIT, "manifest")
    if isinstance(value, dict):
        if value.get("schemaVersion") == 1:
            return media_types.SCHEMA1[0]
        if isinstance(value.get("mediaType"), str):
            return str(value["mediaType"])
        if "manifests" in value:
            return media_types.OCI_INDEX
        if "config" in value:
            return media_types.OCI_MANIFEST
    raise Invalid("the registry's answer is no image manifest", code="document-invalid")


def _mirror(text: str, transport: Transport) -> Endpoint:
    scheme, sep, host = text.partition("://")
    if not sep:
        return Endpoint(text.rstrip("/"), transport)
    return Endpoint(host.rstrip("/"), transport, plain_http=scheme == "http")


def mirrors_for(reference: Reference, mirrors: Mapping[str, Sequence[str]] | None) -> Sequence[str]:
    """The mirrors configured for a reference's registry."""
    return (mirrors or {}).get(reference.registry, ())
