"""Make an image fit to publish: its plain layers compressed with gzip, once; the image ID stays the same."""

from __future__ import annotations

import threading
import zlib
from functools import partial
from typing import Any

import msgspec

from proa.oci import Descriptor, Digest, encode, media_types
from proa.storage import Storage, write_blob
from proa.transfer.copying import unique
from proa.transfer.parallel import run_parallel
from proa.transfer.stored import Stored
from proa.transfer.stored_image import UNPUBLISHED, StoredImage, read_image
from proa.transfer.transport import CHUNK

_isal: Any
try:
    from isal import isal_zlib as _isal
except ImportError:  # no wheel for this machine
    _isal = None

# Two threads keep two cores busy; layers are few and the codec is the cost.
WIDTH = 2


def publish_image(storage: Storage, image: StoredImage, stopped: threading.Event | None = None) -> StoredImage:
    """Compress what is plain, store a manifest over it, and point every name of the image at that.

    The mapping from plain to compressed layers thus is the image itself: it is found again, and collected, with it.
    The caller holds a lease. Raises Corrupt, Exhausted, Cancelled.
    """
    stored = Stored(storage.content)
    packed: dict[Digest, Descriptor] = {}

    def pack(layer: Descriptor) -> None:
        packed[layer.digest] = _compress(stored, layer)

    plain = [d for d in unique(image.manifest.layers) if media_types.layer_compression(d.media_type) == "none"]
    run_parallel([partial(pack, layer) for layer in plain], width=WIDTH, stopped=stopped, stop=stored.stop)
    annotations = {k: v for k, v in (image.manifest.annotations or {}).items() if k != UNPUBLISHED}
    manifest = msgspec.structs.replace(
        image.manifest,
        layers=[packed.get(layer.digest, layer) for layer in image.manifest.layers],
        annotations=annotations or None,
    )
    descriptor = write_blob(storage.content, encode(manifest), image.descriptor.media_type)
    for named in storage.images.find(image.descriptor.digest):
        if named.name != image.descriptor.digest:
            storage.images.put(named.name, descriptor)
        else:
            storage.images.put(descriptor.digest, descriptor)
            storage.images.delete(named.name)
    return read_image(storage.content, descriptor)


def _compress(stored: Stored, layer: Descriptor) -> Descriptor:
    """Gzip one layer blob; the same input gives the same bytes (no time, no name in the header)."""
    codec = _gzip_codec()
    with stored.open(layer) as source, stored.begin_unknown("compress") as ingest:
        while chunk := source.read(CHUNK):
            stored.check()
            if data := codec.compress(chunk):
                ingest.write(data)
        ingest.write(codec.flush())
        size = ingest.offset
        digest = ingest.commit()
    kind = media_types.DOCKER_LAYER_GZIP if layer.media_type == media_types.DOCKER_LAYER else media_types.OCI_LAYER_GZIP
    return Descriptor(media_type=kind, digest=digest, size=size)


def _gzip_codec() -> Any:
    if _isal is not None:
        return _isal.compressobj(level=2, wbits=31)
    return zlib.compressobj(level=4, wbits=31)
