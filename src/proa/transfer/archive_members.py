"""Take an image archive apart while it streams by: documents stay in memory, blobs go straight into the store.

Names inside an archive are keys of a dict here and never paths. A name that is absolute or goes up, a link other than
the ones Docker itself writes, a device, a member given twice: each refuses the archive (CVE-2014-9358 and its kin).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager

import msgspec

from proa.errors import Invalid, NotFound
from proa.oci import CONFIG_LIMIT, Descriptor, Digest, Verifier, digest_of, media_types
from proa.storage.content import ContentStore, Ingest, read_blob, write_blob
from proa.storage.layers.decompress import detect
from proa.storage.layers.headers import BLOCK
from proa.storage.layers.names import display
from proa.storage.layers.reader import TarReader
from proa.storage.limits import Limits
from proa.transfer.early_layer import WORTHWHILE, EarlyLayer
from proa.transfer.stored import Stored

# Kept in memory until a document names it, while there is room: storing a blob takes three flushes of the disk.
SMALL = 16 << 10

_PART = r"[A-Za-z0-9_][A-Za-z0-9._:+@-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_BLOB = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})")
_DOCUMENT = re.compile(r"oci-layout|index\.json|manifest\.json|repositories|(?:[0-9a-f]{64}/)?(?:json|VERSION)")
_JSON = re.compile(r"[^/]*\.json")
# docker save (1.10 to 24) and containers/image write a repeated layer as a link to its twin.
_LINK = re.compile(r"[0-9a-f]{64}/layer\.tar")
_TARGET = re.compile(r"\.\./([0-9a-f]{64}(?:/layer)?\.tar)")
_LINK_DEPTH = 8


class Member(msgspec.Struct, frozen=True):
    """One file of an archive: its digest and size, its compression by its magic, its bytes when the store has not got
    it, and whether its name is a document's."""

    digest: Digest
    size: int
    compression: str = "none"
    data: bytes | None = None
    document: bool = False


class Members:
    """The files of an archive by name."""

    def __init__(self, content: ContentStore, limits: Limits) -> None:
        self.limits = limits
        self._content = content
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._links

    def add(self, name: str, member: Member) -> None:
        """Raises Invalid for a name given twice."""
        if name in self:
            raise Invalid(f"the archive has {name!r} twice", code="archive-invalid", subject=name)
        self._files[name] = member

    def link(self, name: str, target: str) -> None:
        """Note that `name` is another name of `target`. Raises Invalid for a name given twice."""
        if name in self:
            raise Invalid(f"the archive has {name!r} twice", code="archive-invalid", subject=name)
        self._links[name] = target

    def get(self, name: str) -> Member:
        """The file that `name`, from a document inside the archive, means. Raises Invalid, NotFound."""
        if not isinstance(name, str) or _NAME.fullmatch(name) is None or ".." in name.split("/"):
            raise Invalid(f"the archive names a file {name!r:.200}", code="archive-invalid")
        for _ in range(_LINK_DEPTH):
            if (member := self._files.get(name)) is not None:
                return member
            if (target := self._links.get(name)) is None:
                break
            name = target
        raise NotFound(f"the archive has no file {name!r}, which it names", code="archive-incomplete", subject=name)

    def store(self, member: Member) -> None:
        """Have a file in the store that was kept in memory."""
        if member.data is not None:
            write_blob(self._content, member.data, "")

    def document(self, name: str) -> bytes:
        """The bytes of a small file. Raises Invalid, NotFound."""
        member = self.get(name)
        if member.size > self.limits.config_bytes:
            self.limits.exceeded("config_bytes", f"the archive's {name!r} has {member.size} bytes", name)
        if member.data is not None:
            return member.data
        return read_blob(self._content, Descriptor(media_type="", digest=member.digest, size=member.size), CONFIG_LIMIT)


def read_members(chunks: Iterator[bytes], stored: Stored, early: EarlyLayer, limits: Limits) -> Members:
    """Read an uncompressed archive to its end; its blobs are in the store afterwards, held by the caller's lease.

    early: begins to unpack the first layer.

    Raises Invalid (hostile or malformed), Corrupt (truncated, a blob that is not what its name says), Exhausted.
    """
    members = Members(stored.content, limits)
    documents = 0
    reader = TarReader(chunks, limits.archive)
    for entry in reader:
        stored.check()
        name = _safe_name(entry.name)
        if entry.kind == "5":
            continue
        if entry.kind == "2":
            members.link(name, _safe_target(name, entry.linkname))
            continue
        if entry.kind not in ("0", "7"):
            raise Invalid(f"the archive has a member {name!r} that is no file", code="archive-invalid", subject=name)
        if name in members:
            raise Invalid(f"the archive has {name!r} twice", code="archive-invalid", subject=name)
        if _DOCUMENT.fullmatch(name) or (_JSON.fullmatch(name) and entry.size <= limits.config_bytes):
            documents += entry.size
            if entry.size > limits.config_bytes:
                limits.exceeded("config_bytes", f"the archive's {name!r} has {entry.size} bytes", name)
            if documents > limits.archive_document_bytes:
                limits.exceeded("archive_document_bytes", f"the archive's documents have {documents} bytes", name)
            data = b"".join(bytes(piece) for piece in reader.data())
            members.add(name, Member(digest_of(data), len(data), data=data, document=True))
            continue
        blob = _BLOB.fullmatch(name)
        expected = Digest(blob[1].replace("/", ":")) if blob else None
        if entry.size <= SMALL and documents + entry.size <= limits.archive_document_bytes:
            documents += entry.size
            members.add(name, _keep(reader, expected))
        else:
            members.add(name, _spool(reader, entry.size, expected, stored, early))
    return members


def _keep(reader: TarReader, expected: Digest | None) -> Member:
    """Read a small file; `expected` is what its name promises."""
    data = b"".join(bytes(piece) for piece in reader.data())
    verifier = Verifier(expected)
    verifier.update(data)
    return Member(verifier.finish(), len(data), detect(data), data)


def _safe_name(raw: bytes) -> str:
    name = raw.decode("ascii", "replace").removeprefix("./").rstrip("/")
    if name in ("", "."):
        return "."
    if _NAME.fullmatch(name) is None:
        raise Invalid(f"the archive has a member called {display(raw)!r}", code="archive-invalid", subject=display(raw))
    return name


def _safe_target(name: str, raw: bytes) -> str:
    target = _TARGET.fullmatch(raw.decode("ascii", "replace"))
    if _LINK.fullmatch(name) is None or target is None:
        raise Invalid(f"the archive has a link {name!r} to {display(raw)!r}", code="archive-invalid", subject=name)
    return target[1]


def _spool(reader: TarReader, size: int, expected: Digest | None, stored: Stored, early: EarlyLayer) -> Member:
    """Move one file's bytes into the store; `expected` is what its name promises."""
    pieces = reader.data()
    head = b""
    while len(head) < BLOCK and (piece := next(pieces, None)) is not None:
        head += piece
    compression = detect(head)
    if expected is not None:
        descriptor = Descriptor(media_type=media_types.OCI_LAYER, digest=expected, size=size)
        if stored.exists(descriptor):
            return Member(expected, size, compression)
        begun: AbstractContextManager[Ingest] = stored.begin(descriptor)
    else:
        begun = stored.begin_unknown("load")
    with begun as ingest:
        if size >= WORTHWHILE and (compression != "none" or head[257:262] == b"ustar"):
            early.begin(ingest)
        skip = ingest.offset
        for piece in itertools.chain([memoryview(head)], pieces):
            ingest.write(piece[skip:])
            skip = max(0, skip - len(piece))
        return Member(ingest.commit(size), size, compression)
