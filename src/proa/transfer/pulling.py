"""Pull: an image from a registry into the store, unpacked while it downloads."""

from __future__ import annotations

import threading
from functools import partial
from typing import BinaryIO, NamedTuple, cast

import msgspec

from proa.errors import ProaError
from proa.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    Platform,
    Reference,
    chain_ids,
    is_platform_image,
    media_types,
    nearest,
    parse_index,
    select_platform,
)
from proa.storage import Image, Storage, unpack_image
from proa.transfer.copying import copy, unique
from proa.transfer.credentials import Credentials
from proa.transfer.ends import Source
from proa.transfer.parallel import JOBS, Task, run_parallel
from proa.transfer.progress import Progress, ProgressEvent, silent, tell_warnings
from proa.transfer.pull_progress import LayerLines
from proa.transfer.registries import Registries
from proa.transfer.remote import Remote
from proa.transfer.stored import Following, Stored
from proa.transfer.stored_image import ORIGIN, assign, parse_image_config, parse_image_manifest, plain


def pull(
    storage: Storage,
    reference: Reference,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    credentials: Credentials | None = None,
    progress: Progress = silent,
    plain_http: bool | None = None,
    insecure: bool = False,
    registries: Registries | None = None,
    stopped: threading.Event | None = None,
) -> Image:
    """Pull `reference` for `platform` (default: this machine) and name it.

    The name then points to the platform's manifest, the same bytes as in the registry, also when the registry has an
    index, whose digest is noted with the name. Layers that were complete before a failure or cancellation stay for the
    next attempt, partial ones resume.

    all_platforms: keep a whole index; then the name points to it

    progress: called from several threads, one at a time
    registries: mirrors, certificates, proxies
    stopped:  set it to cancel
    Raises NotFound, Unauthorized, Denied, Unavailable, TimedOut, Corrupt, Invalid, Unsupported, Exhausted, Cancelled.
    """
    settings = registries or Registries()
    remote = Remote(
        reference,
        credentials,
        plain_http,
        insecure=insecure,
        registries=settings,
    )
    try:
        with storage.leases.hold(f"pull {reference.name}"):
            transfer = _Transfer(storage, remote, progress, stopped, settings.downloads)
            return _pull(transfer, remote, reference, platform, all_platforms)
    finally:
        remote.close()


class _Transfer(NamedTuple):
    """Where from and to, whom to tell, when to stop, and how many blobs move side by side."""

    storage: Storage
    source: Source
    progress: Progress
    stopped: threading.Event | None
    jobs: int


def _pull(
    transfer: _Transfer, remote: Remote, reference: Reference, platform: Platform | None, all_platforms: bool
) -> Image:
    storage, progress = transfer.storage, transfer.progress
    root = remote.resolve()
    progress(ProgressEvent(status=f"Pulling from {reference.repository}", id=str(reference.object)))
    if all_platforms and media_types.is_index(root.media_type):
        descriptor = _fetch_index(transfer, root, platform)
    else:
        descriptor = _fetch_image(transfer, root, platform)
        if descriptor.digest != root.digest:
            descriptor = msgspec.structs.replace(descriptor, annotations={ORIGIN: root.digest})
    name = reference.name
    if reference.digest:
        name = Reference(registry=reference.registry, repository=reference.repository, digest=reference.digest).name
    fresh = not _points_to(storage, name, descriptor.digest)
    image = assign(storage, name, descriptor)
    tell_warnings(remote.warnings(), progress)
    progress(ProgressEvent(status=f"Digest: {root.digest}"))
    what = "Downloaded newer image for" if fresh else "Image is up to date for"
    progress(ProgressEvent(status=f"Status: {what} {reference.familiar}"))
    return image


def _fetch_index(transfer: _Transfer, root: Descriptor, platform: Platform | None) -> Descriptor:
    """Everything below an index; the image for `platform`, or this machine if there is one, is unpacked at once."""
    stored = Stored(transfer.storage.content)
    index = parse_index(stored.fetch(root, transfer.source), root.media_type)
    images = [d for d in index.manifests if is_platform_image(d)]
    if platform is not None or nearest([d.platform for d in images]) is not None:
        _fetch_image(transfer, root, platform)
    copy(
        transfer.source,
        stored,
        root,
        progress=transfer.progress,
        stopped=transfer.stopped,
        jobs=transfer.jobs,
        words=("Downloading", "Download complete"),
    )
    return plain(root)


def fetch_image(
    storage: Storage,
    source: Source,
    root: Descriptor,
    *,
    platform: Platform | None = None,
    progress: Progress = silent,
    stopped: threading.Event | None = None,
    jobs: int = JOBS,
) -> Descriptor:
    """Bring one image, its documents, layers and snapshots, into the store without naming it; returns its manifest.

    The caller holds a lease. Raises as `pull`.
    """
    return _fetch_image(_Transfer(storage, source, progress, stopped, jobs), root, platform)


def _fetch_image(transfer: _Transfer, root: Descriptor, platform: Platform | None) -> Descriptor:
    source, stored = transfer.source, Stored(transfer.storage.content)
    raw = stored.fetch(root, source)
    descriptor = root
    if media_types.is_index(root.media_type):
        descriptor = select_platform(parse_index(raw, root.media_type), platform)
        raw = stored.fetch(descriptor, source)
        if descriptor.platform is not None:
            platform = None  # was found by it; some images say less of themselves
    descriptor = plain(descriptor)
    manifest = parse_image_manifest(raw, descriptor)
    config = parse_image_config(stored.fetch(manifest.config, source), manifest, platform)
    _fetch_layers(transfer, stored, manifest, config)
    return descriptor


def _fetch_layers(transfer: _Transfer, stored: Stored, manifest: Manifest, config: ImageConfig) -> None:
    storage, source, jobs = transfer.storage, transfer.source, transfer.jobs
    lines = LayerLines(transfer.progress)
    layers = unique(manifest.layers)
    there = {d.digest for d in layers if stored.exists(d)}
    ready = _unpacked(storage, manifest, config)
    lines.begin(layers, there, ready, jobs)
    followed: list[Following] = []

    def open_layer(layer: Descriptor) -> BinaryIO:
        followed.append(Following(stored, layer, partial(lines.extracting, layer)))
        return cast("BinaryIO", followed[-1])

    def unpack() -> None:
        try:
            unpack_image(storage, config, manifest.layers, open_layer, lines.unpack_status)
        except ProaError:
            # Bytes were unpacked before they were verified. What their download says about them comes first; when
            # it broke, or began again, the layer is unpacked once more from the store.
            broken = bool(followed) and followed[-1].broken
            if not broken and (not followed or lines.await_download(followed[-1].descriptor, stored.stopped)):
                raise

    def download(layer: Descriptor) -> None:
        stored.write(layer, source, partial(lines.downloading, layer))
        lines.downloaded(layer)

    def stop() -> None:
        source.stop()
        stored.stop()

    missing = [d for d in layers if d.digest not in there]
    tasks: list[Task] = [unpack, *(partial(download, d) for d in missing)]
    run_parallel(tasks, width=jobs + 1, stopped=transfer.stopped, stop=stop)
    if followed and followed[-1].broken:
        unpack_image(storage, config, manifest.layers, None, lines.unpack_status)


def _unpacked(storage: Storage, manifest: Manifest, config: ImageConfig) -> set[Digest]:
    """The layers whose snapshots are there."""
    ready = set()
    for layer, chain_id in zip(manifest.layers, chain_ids(config.rootfs.diff_ids), strict=True):
        try:
            storage.snapshots.stat(chain_id)
        except ProaError:
            break
        ready.add(layer.digest)
    return ready


def _points_to(storage: Storage, name: str, digest: Digest) -> bool:
    try:
        return storage.images.get(name).descriptor.digest == digest
    except ProaError:
        return False
