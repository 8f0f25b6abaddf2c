"""Import: a file system archive becomes an image of one layer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from proa.oci import (
    Descriptor,
    History,
    ImageConfig,
    Platform,
    Reference,
    RootFS,
    RunConfig,
    digest_of,
    encode,
    host_platform,
    media_types,
)
from proa.storage import Image, Storage, unpack_image
from proa.storage.layers.decompress import decompress
from proa.transfer.early_layer import EarlyLayer
from proa.transfer.progress import Meter, Progress, ProgressEvent, silent
from proa.transfer.stored import Stored
from proa.transfer.stored_image import assign, make_image


def import_tar(
    storage: Storage,
    stream: BinaryIO,
    reference: Reference | None = None,
    *,
    changes_config: RunConfig | None = None,
    message: str = "",
    platform: Platform | None = None,
    source_date_epoch: int | None = None,
    progress: Progress = silent,
    stopped: threading.Event | None = None,
) -> Image:
    """Make an image of the tar in `stream` (plain, gzip, zstd, bzip2 or xz), and name it if `reference` is given.

    The layer is kept uncompressed; push compresses it. source_date_epoch: when the image says it was made, in seconds
    since the epoch. Raises Corrupt, Invalid, Exhausted, Cancelled.
    """
    with storage.leases.hold("import"), EarlyLayer(storage) as early:
        stored = Stored(storage.content, stopped)
        layer = _store_layer(stored, decompress("any", stream.read, storage.limits.layer), early, progress)
        early.settle({layer.digest})
        target = (platform or host_platform()).normalized
        when = datetime.now(UTC) if source_date_epoch is None else datetime.fromtimestamp(source_date_epoch, UTC)
        now = when.isoformat().replace("+00:00", "Z")
        config = ImageConfig(
            created=now,
            architecture=target.architecture,
            variant=target.variant,
            os=target.os,
            config=changes_config or RunConfig(),
            rootfs=RootFS(diff_ids=[layer.digest]),
            history=[History(created=now, comment=message or "Imported from -")],
        )
        unpack_image(storage, config, [layer])
        raw = encode(config)
        descriptor = make_image(storage.content, raw, [layer])
        progress(ProgressEvent(status=digest_of(raw)))
        if reference is None:
            return storage.images.put(descriptor.digest, descriptor)
        return assign(storage, reference.name, descriptor)


def _store_layer(stored: Stored, chunks: Iterator[bytes], early: EarlyLayer, progress: Progress) -> Descriptor:
    meter = Meter(progress, "Importing", "", 0)
    with stored.begin_unknown("import") as ingest:
        early.begin(ingest)
        for chunk in chunks:
            stored.check()
            ingest.write(chunk)
            meter.add(len(chunk))
        size = ingest.offset
        digest = ingest.commit()
    return Descriptor(media_type=media_types.OCI_LAYER, digest=digest, size=size)
