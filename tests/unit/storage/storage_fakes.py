"""Images made by hand and an unpacker that writes one file a layer, for tests of the store without tar."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from proa.oci import Descriptor, ImageConfig, digest_of, media_types, parse_config
from proa.storage import Storage, write_blob
from proa.storage.layers.inventory import write_inventory


class FileUnpacker:
    """`unpack` writes the layer's bytes to the file `layer` and takes their digest for the diff_id."""

    def __init__(self) -> None:
        self.parents: list[list[str]] = []
        self.closed = False

    def unpack(self, reader, compression, target, parents, *, inventory, meanwhile, admitted):
        assert compression == "none"
        hashed = hashlib.sha256()
        read = partial(os.read, reader) if isinstance(reader, int) else reader.read
        with open(Path(target) / "layer", "wb") as f:
            while part := read(65536):
                hashed.update(part)
                f.write(part)
        with open(inventory, "wb") as out:
            fd = os.open(target, os.O_RDONLY)
            write_inventory(out.fileno(), fd, {})
            os.close(fd)
        meanwhile()
        self.parents.append([str(p) for p in parents])
        return SimpleNamespace(diff_id=f"sha256:{hashed.hexdigest()}", size_bytes=4096, inodes=1)

    def close(self) -> None:
        self.closed = True


def make_image(storage: Storage, name: str, layers: list[bytes]) -> tuple[Descriptor, ImageConfig, list[Descriptor]]:
    """Store an image; the manifest's descriptor, the config and the layers' descriptors."""
    stored = [write_blob(storage.content, layer, media_types.OCI_LAYER) for layer in layers]
    raw = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    config = write_blob(storage.content, raw, media_types.OCI_CONFIG)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
            "layers": [{"mediaType": d.media_type, "digest": d.digest, "size": d.size} for d in stored],
        }
    ).encode()
    descriptor = write_blob(storage.content, manifest, media_types.OCI_MANIFEST)
    if name:
        storage.images.put(name, descriptor)
    return descriptor, parse_config(raw), stored
