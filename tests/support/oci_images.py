"""Images from nothing: blobs in memory, an OCI layout or archive of them on disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"


def digest(data: bytes) -> str:
    """The sha256 digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(*members: tuple[str, bytes | str | None] | tarfile.TarInfo) -> bytes:
    """A tar of (name, content): bytes are a file, a str is a symlink's target, None is a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = 1_600_000_000, 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def special(name: str, kind: bytes, major: int = 0, minor: int = 0, mode: int = 0o644) -> tarfile.TarInfo:
    """A FIFO or device entry."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.devmajor, entry.devminor, entry.mode = kind, major, minor, mode
    return entry


def compress(layer: bytes, how: str) -> bytes:
    """`layer` as gzip, zstd or as it is (none)."""
    if how == "gzip":
        return gzip.compress(layer, 1, mtime=0)
    if how == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(layer)
    return layer


class Image:
    """An image's blobs. `config` goes into the image config's `config` member."""

    def __init__(
        self,
        *layers: bytes,
        how: str = "gzip",
        architecture: str = "amd64",
        config: dict[str, Any] | None = None,
        diff_ids: list[str] | None = None,
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.diff_ids = diff_ids or [digest(layer) for layer in layers]
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }
        suffix = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[how]
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.add(json.dumps(document).encode(), f"{OCI}.config.v1+json"),
            "layers": [self.add(compress(layer, how), f"{OCI}.layer.v1.tar{suffix}") for layer in layers],
        }
        self.root = self.add(json.dumps(self.manifest).encode(), f"{OCI}.manifest.v1+json")

    @property
    def id(self) -> str:
        """The digest of the image config."""
        return str(self.manifest["config"]["digest"])

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return str(self.root["digest"])

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Take a blob in; its descriptor."""
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def layout(self, path: Path, name: str = "latest") -> Path:
        """Write an OCI layout."""
        write_layout(path, self.blobs, [{**self.root, "annotations": {"org.opencontainers.image.ref.name": name}}])
        return path

    def archive(self, name: str) -> bytes:
        """An OCI archive (tar of a layout) that names the image."""
        annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        index = {"schemaVersion": 2, "manifests": [{**self.root, "annotations": annotations}]}
        return tar(
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", json.dumps(index).encode()),
            ("blobs", None),
            ("blobs/sha256", None),
            *((f"blobs/sha256/{key.partition(':')[2]}", data) for key, data in self.blobs.items()),
        )


def index_of(images: list[tuple[Image, dict[str, str]]]) -> tuple[bytes, dict[str, bytes]]:
    """An image index over (image, platform) pairs: its bytes, and all blobs with it."""
    blobs: dict[str, bytes] = {}
    for image, _ in images:
        blobs |= image.blobs
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.index.v1+json",
            "manifests": [{**image.root, "platform": platform} for image, platform in images],
        }
    ).encode()
    return raw, {**blobs, digest(raw): raw}


def write_layout(path: Path, blobs: dict[str, bytes], manifests: list[dict[str, Any]]) -> None:
    """An OCI layout directory."""
    folder = path / "blobs" / "sha256"
    folder.mkdir(parents=True)
    for key, data in blobs.items():
        (folder / key.partition(":")[2]).write_bytes(data)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
