"""OCI image layouts in directories, as the archives that engines load and save (image-spec image-layout.md).

    oci:DIR[:TAG]             an OCI layout; TAG is an image's `org.opencontainers.image.ref.name`
    oci-archive:FILE[:NAME]   the same in a tar; docker-archive:FILE[:NAME]   what `docker save` writes
    dir:DIR                   skopeo's flat directory, else a plain root file system

The engine may run elsewhere, so the files are read and written here, and what comes in is verified there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from proa.errors import Conflict, Corrupt, Invalid, NotFound

__all__ = ["Transport", "pack_flat", "pack_layout", "parse_transport", "unpack_layout"]

KINDS = ("oci", "oci-archive", "docker-archive", "dir")
REF_NAME = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})", re.ASCII)
_BLOB = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})", re.ASCII)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_DOCUMENT_LIMIT = 16 << 20
_PIECE = 1 << 20
_BLOCK = 512


class Transport(NamedTuple):
    """Where images are besides registries and engines: kind, path, and which one of several."""

    kind: str
    path: str
    name: str


def parse_transport(text: str) -> Transport | None:
    """Read `oci:DIR:TAG` and its like; None for what can only be an image's name.

    `oci:latest` is the image `oci`, unless there is such a file; with a slash or a second colon it is none.
    """
    kind, mark, rest = text.partition(":")
    if not mark or kind not in KINDS or not rest:
        return None
    path, name = rest, ""
    if kind != "dir" and not os.path.exists(rest):
        front, mark, last = rest.partition(":")
        if mark:
            path, name = front, last
    if "/" not in rest and not name and not os.path.exists(rest):
        return None
    return Transport(kind, path, name)


def pack_layout(path: str, name: str = "") -> Iterator[bytes]:
    """The layout at `path` as an OCI archive: all of it, or only the image called `name` and what it refers to.

    Raises Invalid when it is none, NotFound, Conflict when `name` is empty and there must be one.
    """
    try:
        index = json.loads(_read(path, "index.json"))
        manifests = list(index["manifests"])
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"{path} is no OCI image layout", code="layout-invalid", subject=path) from None
    if name:
        manifests = [m for m in manifests if name in ((m.get("annotations") or {}).get(REF_NAME), m.get("digest"))]
        if not manifests:
            raise NotFound(f"there is no image {name!r} in the layout {path}", code="image-not-found", subject=name)
    yield from _member("oci-layout", _LAYOUT)
    yield from _member("index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())
    seen: set[str] = set()
    pending = manifests[::-1]
    while pending:
        descriptor = pending.pop()
        file = _blob_path(descriptor)
        if file in seen:
            continue
        seen.add(file)
        kind = descriptor.get("mediaType")
        if kind in _MANIFESTS or kind in _INDEXES:
            raw = _read(path, file)
            yield from _member(file, raw)
            pending += [d for d in _children(raw, file)[::-1] if os.path.exists(os.path.join(path, _blob_path(d)))]
        else:
            yield from _file_member(file, os.path.join(path, file))
    yield bytes(2 * _BLOCK)


def pack_flat(path: str) -> Iterator[bytes]:
    """skopeo's `dir:` directory (manifest.json, and blobs named by their hexadecimal digests) as an OCI archive."""
    raw = _read(path, "manifest.json")
    digest = hashlib.sha256(raw).hexdigest()
    try:
        kind = json.loads(raw).get("mediaType", _MANIFESTS[0])
    except (ValueError, AttributeError):
        raise Invalid(f"manifest.json in {path} is none", code="layout-invalid", subject=path) from None
    root = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(raw)}
    yield from _member("oci-layout", _LAYOUT)
    yield from _member("index.json", json.dumps({"schemaVersion": 2, "manifests": [root]}).encode())
    yield from _member(f"blobs/sha256/{digest}", raw)
    for file in dict.fromkeys(_blob_path(d) for d in _children(raw, "manifest.json")):
        yield from _file_member(file, os.path.join(path, file.rpartition("/")[2]))
    yield bytes(2 * _BLOCK)


def unpack_layout(read: Callable[[int], bytes], path: str, name: str = "") -> None:
    """Write an OCI archive, given by its `read`, to the layout directory `path`, beside what is there already.

    name: the tag that the archive's one image gets; without one, images keep theirs. Every blob is verified.
    Raises Corrupt, Invalid, Conflict (a tag for several images), OSError.
    """
    import tarfile

    os.makedirs(os.path.join(path, "blobs", "sha256"), exist_ok=True)
    manifests: list[dict[str, Any]] = []
    try:
        with tarfile.open(fileobj=_Reader(read), mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                if member.name == "index.json":
                    manifests = json.loads(content.read(_DOCUMENT_LIMIT))["manifests"]
                elif (found := _BLOB.fullmatch(member.name)) is not None:
                    _write_blob(path, found[1], iter(lambda c=content: c.read(_PIECE), b""))  # type: ignore[misc]
    except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
        raise Corrupt(f"the archive is damaged: {error}", code="archive-invalid") from None
    if not manifests:
        raise Corrupt("the archive has no index.json", code="archive-invalid")
    if name:
        if len({m["digest"] for m in manifests}) != 1:
            raise Conflict(f"one tag cannot be given to {len(manifests)} images", code="layout-ambiguous")
        manifests = [{**manifests[0], "annotations": {REF_NAME: name}}]
    _add_names(path, manifests)


def _add_names(path: str, manifests: list[dict[str, Any]]) -> None:
    kept: list[dict[str, Any]] = []
    if os.path.exists(os.path.join(path, "index.json")):
        kept = json.loads(_read(path, "index.json"))["manifests"]

    def key(descriptor: dict[str, Any]) -> str:
        return str((descriptor.get("annotations") or {}).get(REF_NAME) or descriptor["digest"])

    new = {key(m) for m in manifests}
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEXES[0],
        "manifests": [*(m for m in kept if key(m) not in new), *manifests],
    }
    _replace(os.path.join(path, "oci-layout"), [_LAYOUT])
    _replace(os.path.join(path, "index.json"), [json.dumps(index, separators=(",", ":")).encode()])


def _write_blob(path: str, file: str, pieces: Iterable[bytes]) -> None:
    target = os.path.join(path, "blobs", file)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    hashed = hashlib.new(file.partition("/")[0])

    def checked() -> Iterator[bytes]:
        for piece in pieces:
            hashed.update(piece)
            yield piece
        if hashed.hexdigest() != file.partition("/")[2]:
            raise Corrupt(f"blob {file} of the archive is not what its name says", code="digest-mismatch")

    if os.path.exists(target):
        for _ in pieces:
            pass
    else:
        _replace(target, checked())


def _replace(path: str, pieces: Iterable[bytes]) -> None:
    temporary = f"{os.path.dirname(path)}/.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as out:
            out.writelines(pieces)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _read(path: str, file: str) -> bytes:
    try:
        with open(os.path.join(path, file), "rb") as f:
            raw = f.read(_DOCUMENT_LIMIT + 1)
    except OSError as error:
        raise Invalid(f"cannot read {file} in {path}: {error.strerror}", code="layout-invalid", subject=path) from None
    if len(raw) > _DOCUMENT_LIMIT:
        raise Invalid(f"{file} in {path} is too long", code="layout-invalid", subject=path)
    return raw


def _children(raw: bytes, file: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(raw)
        found = [*(document.get("manifests") or ()), *(document.get("layers") or ())]
        return [document["config"], *found] if document.get("config") else found
    except (ValueError, AttributeError, TypeError):
        raise Corrupt(f"{file} is no manifest", code="layout-invalid", subject=file) from None


def _blob_path(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
        raise Corrupt(f"a descriptor has the digest {digest!r:.100}", code="layout-invalid")
    return f"blobs/{digest.replace(':', '/')}"


def _file_member(name: str, path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", code="layout-invalid", subject=path) from None
    with open(fd, "rb", buffering=0) as f:
        size = left = os.fstat(f.fileno()).st_size
        yield _header(name, size)
        while left > 0 and (piece := f.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece
    if left:
        raise Conflict(f"{path} became shorter while it was read", code="layout-changed", subject=path)
    yield bytes(-size % _BLOCK)


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    import tarfile

    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


class _Reader:
    """`read(size)` that returns all it was asked for, as tarfile expects of a stream."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = b""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes but at the end."""
        parts, count = [self._left], len(self._left)
        while count < size and (piece := self._read(size - count)):
            parts.append(piece)
            count += len(piece)
        data = b"".join(parts)
        self._left = data[size:]
        return data[:size]
