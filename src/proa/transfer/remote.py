"""An image in a registry, as source and sink (distribution-spec, "Pull" and "Push")."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import TypeVar

from proa.errors import Cancelled, Corrupt, Invalid, ProaError, TimedOut, Unavailable, Unsupported
from proa.oci import (
    Descriptor,
    Digest,
    Reference,
    Verifier,
    digest_of,
    media_types,
    parse_digest,
    strict_loads,
)
from proa.storage.limits import Bound
from proa.transfer.auth import check_credentials_server
from proa.transfer.credentials import Credentials
from proa.transfer.endpoint import Endpoint
from proa.transfer.ends import Advance, Source
from proa.transfer.failures import printable, registry_failure, resolve_failure
from proa.transfer.registries import Registries
from proa.transfer.remote_stream import RemoteStream, blob_stream
from proa.transfer.transport import TRIES, Transport
from proa.transfer.upload import push_blob
from proa.transfer.wire import HttpReply

ACCEPT = ", ".join([*media_types.INDEXES, *media_types.MANIFESTS])
_LENGTH = re.compile(r"[0-9]{1,18}")

T = TypeVar("T")


class Remote:
    """Source and sink for one reference.

    credentials: for the reference's registry; credentials that name another server are not used
    plain_http:  True: http only. False: https only. None: http for a registry on this machine, https for others
    insecure:    check no certificate, and allow plain http when https does not answer
    registries:  mirrors, certificates, proxies; what is configured there for the registry counts
    mount_from:  for a blob to push, a repository of the same registry that may have it already; a text is one for all
    Raises what ends.Source and ends.Sink say.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        plain_http: bool | None = None,
        *,
        insecure: bool = False,
        registries: Registries | None = None,
        mount_from: Mapping[Digest, str] | str | None = None,
        transport: Transport | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        self.reference = reference
        settings = registries or Registries()
        self.limits = settings.limits
        self._transport = transport or Transport(registries=settings, stopped=stopped)
        self._own = Endpoint(
            reference.registry,
            settings.servers(reference.registry, insecure=insecure, plain_http=plain_http),
            self._transport,
            check_credentials_server(credentials, reference.registry),
            allowed_realms=settings.token_servers,
        )
        self._mirrors = [
            Endpoint(reference.registry, hosts, self._transport, mirror=True)
            for hosts in settings.before(reference.registry)
        ]
        self._lost: set[Endpoint] = set()
        self._mount_any = mount_from if isinstance(mount_from, str) else None
        self._mount_from = dict(mount_from) if isinstance(mount_from, Mapping) else {}
        self._mounted: dict[Digest, str] = {}
        self._documents: dict[Digest, bytes] = {}
        self._repository = f"/{reference.repository}"

    def resolve(self) -> Descriptor:
        """Ask what the reference names: HEAD, or GET where the registry's HEAD says too little."""
        return self._first("pull" if self.reference.digest else "resolve", self._resolve_at)

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or index by digest, or a config blob; verified."""
        self.limits.check_size(descriptor)
        raw = self._documents.get(descriptor.digest)
        if raw is None:
            raw = self._fetch_document(descriptor)
        self.limits.admit(descriptor, raw)
        return raw

    def _fetch_document(self, descriptor: Descriptor) -> bytes:
        manifest = media_types.is_document(descriptor.media_type)
        path = f"{self._repository}/{'manifests' if manifest else 'blobs'}/{descriptor.digest}"

        def read(endpoint: Endpoint) -> bytes:
            headers = {"Accept": ACCEPT} if manifest else {}
            bound: Bound = "manifest_bytes" if manifest else "config_bytes"
            reply = endpoint.call("GET", path, self._pull, headers=headers, bound=bound)
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

        return self._first("pull", read)

    def open(self, descriptor: Descriptor, offset: int = 0) -> RemoteStream:
        """GET a blob, the rest of it by Range when `offset` is not zero."""
        path = f"{self._repository}/blobs/{descriptor.digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}

        def open_at(endpoint: Endpoint) -> RemoteStream:
            return blob_stream(self._transport, endpoint.open(path, self._pull, headers), descriptor, offset)

        return self._first("pull", open_at)

    def pause(self, tried: int, failure: ProaError) -> bool:
        """Back off between tries of one blob, or wait for as long as the registry asked."""
        if tried + 1 >= TRIES:
            return False
        self._transport.pause(tried, failure.fields.get("retry_after_s"))
        return True

    def exists(self, descriptor: Descriptor) -> bool:
        """HEAD."""
        kind = "manifests" if media_types.is_document(descriptor.media_type) else "blobs"
        headers = {"Accept": ACCEPT} if kind == "manifests" else {}
        reply = self._pushed().call(
            "HEAD", f"{self._repository}/{kind}/{descriptor.digest}", self._push, headers=headers
        )
        return reply.status == 200

    def write(self, descriptor: Descriptor, source: Source, advance: Advance) -> bool:
        """Push a blob unless the registry has it or can mount it; a broken upload begins again from the start."""
        outcome = push_blob(
            self._pushed(),
            self.reference.repository,
            descriptor,
            partial(source.open, descriptor),
            advance,
            self._push,
            self._mount_from.get(descriptor.digest, self._mount_any),
        )
        if outcome.mounted_from:
            self._mounted[descriptor.digest] = outcome.mounted_from
        return outcome.sent

    def write_bytes(self, descriptor: Descriptor, data: bytes) -> None:
        """Push a small blob."""
        scopes = self._push
        push_blob(self._pushed(), self.reference.repository, descriptor, lambda: BytesIO(data), lambda _: None, scopes)

    def ask(self, method: str, path: str, *, action: str = "pull", bound: Bound = "reply_bytes") -> HttpReply:
        """Any request below the repository, at the registry itself; the caller judges the reply."""
        scopes = (f"repository:{self.reference.repository}:{action}",)
        return self._own.call(method, f"{self._repository}{path}", scopes, bound=bound)

    def warnings(self) -> list[str]:
        """What the registry has asked to tell its user, once each."""
        return [printable(text) for text in self._transport.warnings]

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
        others = {*self._mount_from.values(), *([self._mount_any] if self._mount_any else [])}
        mounts = tuple(f"repository:{name}:pull" for name in sorted(others))
        return (f"repository:{self.reference.repository}:pull,push", *mounts)

    def _first(self, capability: str, ask: Callable[[Endpoint], T]) -> T:
        """The answer of the first mirror that has one, else of the registry, whose failure is what users see."""
        for mirror in self._mirrors:
            if mirror in self._lost or not mirror.may(capability):
                continue
            try:
                return ask(mirror)
            except (Cancelled, Unsupported):
                raise
            except (Unavailable, TimedOut) as e:
                if e.code != "registry-failed":  # it did not answer: not to be waited for again for each blob
                    self._lost.add(mirror)
            except ProaError:
                pass
        return ask(self._own)

    def _pushed(self) -> Endpoint:
        """Where pushes go: the registry, unless a host before it is meant to take them."""
        return next((mirror for mirror in self._mirrors if mirror.may("push")), self._own)

    def _resolve_at(self, endpoint: Endpoint) -> Descriptor:
        path = f"{self._repository}/manifests/{self.reference.object}"
        reply = endpoint.call("HEAD", path, self._pull, headers={"Accept": ACCEPT})
        if reply.status == 200:
            media_type = _media_type(reply)
            self._refuse_schema1(media_type)
            digest, length = reply.headers.get("docker-content-digest", ""), reply.headers.get("content-length", "")
            if media_types.is_document(media_type) and digest and _LENGTH.fullmatch(length):
                if self.reference.digest and digest != self.reference.digest:
                    raise Corrupt(
                        f"{self.reference.familiar} was asked for and {digest[:160]} answered",
                        code="digest-mismatch",
                        subject=self.reference.familiar,
                    )
                return Descriptor(media_type=media_type, digest=parse_digest(digest), size=int(length))
        # A HEAD failure has no body to explain it, and some proxies allow no HEAD: GET tells.
        reply = endpoint.call("GET", path, self._pull, headers={"Accept": ACCEPT}, bound="manifest_bytes")
        if reply.status != 200:
            raise resolve_failure(reply, self.reference)
        found = digest_of(reply.body)
        if self.reference.digest:
            verifier = Verifier(self.reference.digest)
            verifier.update(reply.body)
            found = verifier.finish()
        media_type = _media_type(reply)
        if not media_types.is_document(media_type):
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

    def _put(self, descriptor: Descriptor, raw: bytes, name: str) -> None:
        reply = self._pushed().call(
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


def _media_type(reply: HttpReply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()


def _media_type_inside(raw: bytes) -> str:
    """What a manifest says it is, for registries that serve it as plain JSON."""
    value = strict_loads(raw, len(raw), "manifest")
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
