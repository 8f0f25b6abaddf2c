"""An OCI image layout in a directory, as source and sink (image-spec image-layout.md).

    oci-layout                   {"imageLayoutVersion":"1.0.0"}
    index.json                   the names, as annotations of descriptors
    blobs/<algorithm>/<hex>      content, named by nothing but digests

The directory may come from anyone: every component is opened without following symbolic links, only digests become
file names, and every blob is verified.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Final

import msgspec

from proa.errors import Conflict, Corrupt, Invalid, NotFound, ProaError
from proa.oci import (
    Descriptor,
    Digest,
    Index,
    Verifier,
    digest_algorithm,
    digest_hex,
    encode,
    media_types,
    parse_digest,
    parse_index,
    strict_loads,
)
from proa.storage.limits import Bound, Limits
from proa.transfer.ends import Advance, Source
from proa.transfer.transport import CHUNK

REF_NAME: Final = "org.opencontainers.image.ref.name"
LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'

_NOFOLLOW = os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW


class Layout:
    """Source and sink for the image called `name` (its ref.name annotation) in the layout at `path`.

    Without a name, the source is the only image there is. As a sink the directory is made when it is missing.
    Raises Invalid when the directory is no layout, and what ends.Source and ends.Sink say.
    """

    def __init__(self, path: Path, name: str | None = None, limits: Limits | None = None) -> None:
        self.path = path
        self.name = name
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def resolve(self) -> Descriptor:
        """Find `name` in index.json. Raises NotFound, Conflict (several images and no name)."""
        manifests = self.index().manifests
        if self.name is not None:
            for descriptor in manifests:
                if (descriptor.annotations or {}).get(REF_NAME) == self.name:
                    return _plain(descriptor)
            raise NotFound(f"there is no image {self.name!r} in layout {self.path}", subject=self.name)
        if len(manifests) != 1:
            names = sorted((d.annotations or {}).get(REF_NAME, d.digest) for d in manifests)
            raise Conflict(
                f"layout {self.path} has {len(manifests)} images: choose one",
                code="layout-ambiguous",
                hint="there are: " + ", ".join(names[:20]),
            )
        return _plain(manifests[0])

    def index(self) -> Index:
        """index.json. Raises Invalid, NotFound."""
        version = strict_loads(self._read_file("oci-layout", 4096), 4096, "oci-layout")
        if not isinstance(version, dict) or not str(version.get("imageLayoutVersion", "")).startswith("1."):
            raise Invalid(f"{self.path} is no OCI image layout of version 1", code="layout-invalid")
        index = parse_index(self._read_file("index.json", self._limits.manifest_bytes, "manifest_bytes"))
        if len(index.manifests) > self._limits.index_manifests:
            self._limits.exceeded("index_manifests", f"layout {self.path} has {len(index.manifests)} images")
        return index

    def read(self, descriptor: Descriptor) -> bytes:
        """See ends.Source."""
        self._limits.check_size(descriptor)
        with self.open(descriptor) as stream:
            raw = stream.read(descriptor.size + 1)
        verifier = Verifier(descriptor.digest, descriptor.size)
        verifier.update(raw)
        verifier.finish()
        self._limits.admit(descriptor, raw)
        return raw

    def open(self, descriptor: Descriptor, offset: int = 0) -> _FileStream:
        """See ends.Source. Raises Corrupt when the file's size is not the descriptor's."""
        parse_digest(descriptor.digest)
        fd = self._open_file("blobs", digest_algorithm(descriptor.digest), digest_hex(descriptor.digest))
        size = os.fstat(fd).st_size
        if size != descriptor.size:
            os.close(fd)
            raise Corrupt(
                f"blob {descriptor.digest} in {self.path} has {size} bytes, {descriptor.size} were promised",
                code="size-mismatch",
                subject=descriptor.digest,
            )
        os.lseek(fd, offset, os.SEEK_SET)
        return _FileStream(fd, offset)

    def pause(self, tried: int, failure: ProaError) -> bool:  # noqa: ARG002 (the seam's)
        """A disk does not get better by waiting."""
        return False

    def exists(self, descriptor: Descriptor) -> bool:
        """True when the blob is there with its size."""
        try:
            self.open(descriptor).close()
        except (NotFound, Corrupt):
            return False
        return True

    def write(self, descriptor: Descriptor, source: Source, advance: Advance) -> bool:
        """Write a blob beside its name, verify, rename."""
        if self.exists(descriptor):
            return False
        folder = self._blobs(descriptor.digest)
        temporary = folder / f".tmp-{os.getpid()}-{threading.get_native_id()}"
        verifier = Verifier(descriptor.digest, descriptor.size)
        try:
            with open(temporary, "xb") as out, source.open(descriptor) as stream:
                while chunk := stream.read(CHUNK):
                    verifier.update(chunk)
                    out.write(chunk)
                    advance(verifier.size)
                verifier.finish()
                out.flush()
                os.fsync(out.fileno())
            os.rename(temporary, folder / digest_hex(descriptor.digest))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return True

    def put(self, descriptor: Descriptor, raw: bytes) -> None:
        """Write a small document under its digest."""
        folder = self._blobs(descriptor.digest)
        _replace(folder / digest_hex(descriptor.digest), raw)

    def tag(self, descriptor: Descriptor, raw: bytes) -> None:
        """Write the root and point `name` at it in index.json."""
        self.put(descriptor, raw)
        with self._lock:
            try:
                kept = self.index().manifests
            except NotFound:
                kept = []
                _replace(self.path / "oci-layout", LAYOUT_FILE)
            kept = [d for d in kept if not self._is_replaced(d, descriptor)]
            named = msgspec.structs.replace(descriptor, annotations={REF_NAME: self.name} if self.name else None)
            index = Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=[*kept, named])
            _replace(self.path / "index.json", encode(index))

    def stop(self) -> None:
        """Disk reads end by themselves."""
        self._stopped.set()

    def _is_replaced(self, old: Descriptor, new: Descriptor) -> bool:
        name = (old.annotations or {}).get(REF_NAME)
        return name == self.name and (name is not None or old.digest == new.digest)

    def _blobs(self, digest: Digest) -> Path:
        parse_digest(digest)
        folder = self.path / "blobs" / digest_algorithm(digest)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _open_file(self, *parts: str) -> int:
        """Open a regular file below the layout without following a symbolic link anywhere below it."""
        what = "/".join(parts)
        opened: list[int] = []
        try:
            opened.append(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for part in parts[:-1]:
                opened.append(os.open(part, _DIRECTORY, dir_fd=opened[-1]))
            # O_NONBLOCK: a FIFO at this name must not hold us.
            fd = os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | _NOFOLLOW, dir_fd=opened[-1])
        except FileNotFoundError:
            raise NotFound(f"there is no {what} in layout {self.path}", code="layout-incomplete") from None
        except OSError as e:
            raise Invalid(f"cannot read {what} in layout {self.path}: {e.strerror}", code="layout-invalid") from None
        finally:
            for directory in opened:
                os.close(directory)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Invalid(f"{what} in layout {self.path} is no regular file", code="layout-invalid")
        return fd

    def _read_file(self, name: str, limit: int, bound: Bound | None = None) -> bytes:
        with os.fdopen(self._open_file(name), "rb") as f:
            raw = f.read(limit + 1)
        if len(raw) > limit and bound:
            self._limits.exceeded(bound, f"{name} in layout {self.path} has more than {limit} bytes")
        if len(raw) > limit:
            raise Invalid(f"{name} in layout {self.path} is longer than {limit} bytes", code="too-large")
        return raw


class _FileStream:
    """An open file as an ends.Stream."""

    def __init__(self, fd: int, offset: int) -> None:
        self.offset = offset
        self._file = os.fdopen(fd, "rb", buffering=0)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes."""
        return self._file.read(size) or b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> _FileStream:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(descriptor: Descriptor) -> Descriptor:
    """A descriptor without the name it had in its layout."""
    return msgspec.structs.replace(descriptor, annotations=None)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.parent / f".tmp-{os.getpid()}-{threading.get_native_id()}"
    with open(temporary, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.rename(temporary, path)
