"""Unpack an image: each layer applied on the one below, into committed snapshots named by chain IDs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from proa.errors import Conflict, Corrupt, NotFound
from proa.linux.files import syncfs
from proa.oci import Descriptor, Digest, ImageConfig, chain_ids, media_types
from proa.storage.failpoint import failpoint
from proa.storage.paths import INVENTORY
from proa.storage.snapshots import Mount, Usage, lower_dirs, upper_dir

if TYPE_CHECKING:
    from proa.storage.layers import UnpackResult
    from proa.storage.store import Storage

Readers = Callable[[Descriptor], BinaryIO]
Progress = Callable[[Descriptor, str], None]


def _silent(_layer: Descriptor, _status: str) -> None:
    pass


def unpack_image(
    storage: Storage,
    config: ImageConfig,
    layers: Sequence[Descriptor],
    readers: Readers | None = None,
    progress: Progress | None = None,
    *,
    admitted: bool = False,
) -> Digest:
    """Make the snapshots of an image, lowest first, and return the chain ID of the uppermost ("" for no layers).

    readers: gives the bytes of a layer, e.g. `Ingest.follow` of one that still downloads; it is called only for layers
    that have no snapshot yet, in order, and the reader is closed. Default: the content store.
    progress(layer, status): "exists", "unpacking", "unpacked".
    admitted: the layers that have no snapshot yet were made here, see Unpacker.unpack.

    A layer is visible only after its diff_id was verified and its files are on disk; on failure nothing of it stays.
    Several threads may unpack images that share layers: each layer is unpacked once.
    Raises Corrupt, Invalid, NotFound, Exhausted.
    """
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(layers):
        raise Corrupt(f"image config has {len(diff_ids)} diff_ids for {len(layers)} layers", code="config-mismatch")
    report = progress or _silent
    parent = Digest("")
    with storage.leases.hold("unpack"):
        for layer, diff_id, chain_id in zip(layers, diff_ids, chain_ids(diff_ids), strict=True):
            with storage.unpacking.hold(chain_id):
                if _is_committed(storage, chain_id):
                    report(layer, "exists")
                else:
                    report(layer, "unpacking")
                    unpack = partial(unpack_into, storage, layer, diff_id, readers=readers, admitted=admitted)
                    _unpack_layer(storage, chain_id, parent, unpack)
                    report(layer, "unpacked")
            parent = chain_id
    return parent


def _is_committed(storage: Storage, chain_id: Digest) -> bool:
    try:
        return storage.snapshots.stat(chain_id).kind == "committed"
    except NotFound:
        return False


def _unpack_layer(
    storage: Storage, chain_id: Digest, parent: Digest, unpack: Callable[[Sequence[Mount]], Usage]
) -> None:
    key = f"unpack:{chain_id}:{secrets.token_hex(4)}"
    mounts = storage.snapshots.prepare(key, parent)
    try:
        usage = unpack(mounts)
        failpoint("unpack.before-commit")
        storage.snapshots.commit(chain_id, key, usage)
    except BaseException as e:
        try:
            storage.snapshots.remove(key)
        except NotFound:
            pass
        if isinstance(e, Conflict) and _is_committed(storage, chain_id):
            return
        raise


def unpack_into(
    storage: Storage,
    layer: Descriptor,
    diff_id: Digest,
    mounts: Sequence[Mount],
    readers: Readers | None = None,
    *,
    admitted: bool = False,
) -> Usage:
    """Apply one layer to a snapshot just prepared; its files and their inventory are verified and durable afterwards.

    Raises as unpack_image.
    """
    target = Path(upper_dir(mounts))

    def unpack(source: BinaryIO | int) -> UnpackResult:
        return storage.unpacker.unpack(
            source,
            media_types.layer_compression(layer.media_type),
            target,
            [Path(p) for p in lower_dirs(mounts)],
            admitted=admitted,
            inventory=target.with_name(INVENTORY),
            meanwhile=partial(sync, target),
        )

    if readers is None:
        # The worker reads the file itself, past this process; the diff_id below covers every byte it uses.
        fd = storage.content.open_file(layer)
        try:
            result = unpack(fd)
        finally:
            os.close(fd)
    else:
        with readers(layer) as reader:
            result = unpack(reader)
    if result.diff_id != diff_id:
        raise Corrupt(
            f"layer {layer.digest} unpacks to {result.diff_id}, the image config says {diff_id}",
            code="diff-id-mismatch",
            subject=layer.digest,
        )
    return Usage(result.size_bytes, result.inodes)


def sync(directory: Path) -> None:
    """Make a whole tree durable."""
    failpoint("unpack.before-sync")
    # Names, data and attributes of thousands of files in one call; committing first would leave empty files behind a
    # power loss, under a name that promises whole ones.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
