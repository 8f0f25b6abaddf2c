"""Make an image fit to publish: its plain layers compressed, once; the image ID stays the same."""

from __future__ import annotations

import threading
from functools import partial

import msgspec

from proa.oci import Descriptor, Digest, encode, media_types
from proa.storage import Storage, write_blob
from proa.storage.layers.encoders import GZIP, Compression, make_encoder
from proa.transfer.copying import unique
from proa.transfer.parallel import run_parallel
from proa.transfer.stored import Stored
from proa.transfer.stored_image import OCI_LAYERS, UNPUBLISHED, StoredImage, read_image
from proa.transfer.transport import CHUNK

# The codec uses all processors for one layer; with a second under way they are busy while the first one ends.
WIDTH = 2


def publish_image(
    storage: Storage,
    image: StoredImage,
    stopped: threading.Event | None = None,
    compression: Compression = GZIP,
) -> StoredImage:
    """Compress what is plain, store a manifest over it, and point every name of the image at that.

    The mapping from plain to compressed layers thus is the image itself: it is found again, and collected, with it.
    The caller holds a lease. Raises Corrupt, Exhausted, Cancelled.
    """
    stored = Stored(storage.content)
    packed: dict[Digest, Descriptor] = {}

    def pack(layer: Descriptor) -> None:
        packed[layer.digest] = _compress(stored, layer, compression)

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


def _compress(stored: Stored, layer: Descriptor, compression: Compression) -> Descriptor:
    """Pack one layer blob; the same input gives the same bytes (no time, no name in the header)."""
    docker = layer.media_type == media_types.DOCKER_LAYER
    if docker and compression.format != "gzip":
        compression = GZIP  # Docker's manifests know nothing else
    encoder = make_encoder(compression)
    if encoder is None:
        return layer
    with stored.open(layer) as source, stored.begin_unknown("compress") as ingest:
        while chunk := source.read(CHUNK):
            stored.check()
            if data := encoder.compress(chunk):
                ingest.write(data)
        ingest.write(encoder.flush())
        size = ingest.offset
        digest = ingest.commit()
    kind = media_types.DOCKER_LAYER_GZIP if docker else OCI_LAYERS[compression.format]
    return Descriptor(media_type=kind, digest=digest, size=size)
