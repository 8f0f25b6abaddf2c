"""Write images as one archive that every engine loads: an OCI layout in a tar, with Docker's manifest.json beside it.

    oci-layout  index.json                 read by podman, skopeo, containerd, Docker 25 and later
    manifest.json                          read by docker load of every version: Config and Layers name blobs
    blobs/sha256/<hex>                     the documents, then the layers, lowest first, once each

The documents come first, so that a reader of a stream knows what the blobs are when they come. The same images give
the same bytes: no times, no owners.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from proa.errors import NotFound
from proa.oci import Descriptor, Index, digest_algorithm, digest_hex, encode, media_types, parse_reference
from proa.storage.content import ContentStore
from proa.transfer.archive_images import IMAGE_NAME
from proa.transfer.layout import LAYOUT_FILE, REF_NAME
from proa.transfer.stored_image import StoredImage
from proa.transfer.transport import CHUNK

BLOCK = 512
_OCTAL_LIMIT = 8 << 30


def write_archive(content: ContentStore, images: Sequence[tuple[StoredImage, Sequence[str]]], out: BinaryIO) -> None:
    """Write `images`, each with its canonical names, to `out`, which need not seek.

    Raises Corrupt when a blob is not what its digest says, NotFound when one is missing: before anything is written
    where that can be known.
    """
    blobs = _blobs(content, [image for image, _ in images])
    _write_file(out, "oci-layout", LAYOUT_FILE)
    _write_file(out, "index.json", encode(_index(images)))
    _write_file(out, "manifest.json", _docker_manifest(images))
    folders = sorted({f"blobs/{digest_algorithm(d.digest)}/" for d in blobs})
    out.writelines(_header(folder, 0, kind=b"5", mode=0o755) for folder in ["blobs/", *folders])
    for blob in blobs:
        out.write(_header(_path(blob), blob.size))
        with content.open(blob) as reader:
            while chunk := reader.read(CHUNK):
                out.write(chunk)
        out.write(bytes(-blob.size % BLOCK))
    out.write(bytes(2 * BLOCK))


def _blobs(content: ContentStore, images: Sequence[StoredImage]) -> list[Descriptor]:
    """Every blob of the images once, documents before layers, layers in the order in which they are applied."""
    documents: dict[str, Descriptor] = {}
    layers: dict[str, Descriptor] = {}
    for image in images:
        documents[image.descriptor.digest] = image.descriptor
        documents[image.manifest.config.digest] = image.manifest.config
        layers.update({layer.digest: layer for layer in image.manifest.layers})
    for digest, layer in layers.items():
        try:
            content.info(layer.digest)
        except NotFound:
            raise NotFound(
                f"layer {digest} is not in the store",
                code="content-missing",
                subject=digest,
                hint="pull the image again" if not layer.urls else "it is kept by its publisher only",
            ) from None
    return [*(documents[key] for key in sorted(documents)), *layers.values()]


def _index(images: Sequence[tuple[StoredImage, Sequence[str]]]) -> Index:
    manifests = []
    for image, names in images:
        platform = image.config.platform if image.config.architecture else None
        base = msgspec.structs.replace(image.descriptor, platform=platform)
        annotations = [{IMAGE_NAME: name, REF_NAME: name} for name in sorted(names)]
        manifests += [msgspec.structs.replace(base, annotations=a) for a in annotations] or [base]
    return Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=manifests)


def _docker_manifest(images: Sequence[tuple[StoredImage, Sequence[str]]]) -> bytes:
    entries = [
        {
            "Config": _path(image.manifest.config),
            "RepoTags": sorted(parse_reference(name).familiar for name in names) or None,
            "Layers": [_path(layer) for layer in image.manifest.layers],
        }
        for image, names in images
    ]
    return json.dumps(entries, separators=(",", ":")).encode()


def _path(descriptor: Descriptor) -> str:
    return f"blobs/{digest_algorithm(descriptor.digest)}/{digest_hex(descriptor.digest)}"


def _write_file(out: BinaryIO, name: str, data: bytes) -> None:
    out.write(_header(name, len(data)) + data + bytes(-len(data) % BLOCK))


def _header(name: str, size: int, *, kind: bytes = b"0", mode: int = 0o644) -> bytes:
    """One ustar header; a size of 8 GiB and more in base 256, which every reader of today knows.

    blobs/sha512/<hex> has 141 characters: the part before the last slash goes into the prefix field.
    """
    prefix, _, base = ("", "", name) if len(name) < 100 else name.rpartition("/")
    octal = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    if len(base) > 100:
        # The name field holds 100 bytes: a pax record carries the longer one (POSIX pax, "path").
        record = f" path={name}\n"
        length = len(record) + len(str(len(record) + 3))
        data = f"{length}{record}".encode()
        return _header("paxheader", len(data), kind=b"x") + data + bytes(-len(data) % BLOCK) + _header(base[:99], size)
    block = bytearray(BLOCK)
    block[0 : len(base)] = base.encode("ascii")
    block[100:108] = b"%07o\0" % mode
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = octal
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[345 : 345 + len(prefix)] = prefix.encode("ascii")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
