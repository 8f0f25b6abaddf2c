"""Push: an image from the store to a registry, unchanged when a registry has seen it, compressed when it is ours."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import partial
from pathlib import Path

from proa.errors import Invalid, ProaError
from proa.oci import Descriptor, Digest, Reference, media_types, parse_reference
from proa.storage import Storage
from proa.transfer.compress import publish_image
from proa.transfer.copying import unique
from proa.transfer.credentials import Credentials
from proa.transfer.parallel import JOBS, run_parallel
from proa.transfer.progress import Meter, Progress, ProgressEvent, one_at_a_time, short_id, silent
from proa.transfer.remote import Remote
from proa.transfer.stored import Stored
from proa.transfer.stored_image import UNPUBLISHED, StoredImage, read_image
from proa.transfer.transport import CERTS_DIR

_PREPARED = 5


def push(
    storage: Storage,
    reference: Reference,
    *,
    credentials: Credentials | None = None,
    progress: Progress = silent,
    plain_http: bool | None = None,
    insecure: bool = False,
    allowed_realms: Collection[str] = (),
    certs_dir: Path = CERTS_DIR,
    stopped: threading.Event | None = None,
) -> Descriptor:
    """Push the image called `reference` to the registry in its name; returns the manifest that is there now.

    An image whose layers are plain tars of our own making (load, import, commit) is compressed first, once: its names
    then point to the compressed image, so the next push finds everything in place. Its ID does not change by that.
    progress: called from several threads, one at a time
    Raises NotFound, Unauthorized, Denied, Unavailable, TimedOut, Corrupt, Invalid, Exhausted, Cancelled.
    """
    if reference.digest and not reference.tag:
        raise Invalid("cannot push a digest reference", code="push-digest", subject=reference.familiar)
    progress = one_at_a_time(progress)
    with storage.leases.hold(f"push {reference.name}"):
        image = read_image(storage.content, storage.images.get(reference.name).descriptor)
        progress(ProgressEvent(status=f"The push refers to repository [{reference.registry}/{reference.repository}]"))
        names = _names(image)
        for layer in unique(image.manifest.layers):
            progress(ProgressEvent(status="Preparing", id=names[layer.digest]))
        if image.is_unpublished:
            image = publish_image(storage, image, stopped)
            names = _names(image)
        remote = Remote(
            reference,
            credentials,
            plain_http,
            insecure=insecure,
            mount_from=_mounts(storage, reference, image),
            allowed_realms=allowed_realms,
            certs_dir=certs_dir,
        )
        try:
            _upload(Stored(storage.content), remote, image, names, progress, stopped)
        finally:
            remote.close()
    descriptor = image.descriptor
    tag = reference.tag or ""
    progress(ProgressEvent(status=f"{tag}: digest: {descriptor.digest} size: {descriptor.size}"))
    progress(ProgressEvent(aux={"Tag": tag, "Digest": descriptor.digest, "Size": descriptor.size}))
    return descriptor


def _upload(
    stored: Stored,
    remote: Remote,
    image: StoredImage,
    names: dict[Digest, str],
    progress: Progress,
    stopped: threading.Event | None,
) -> None:
    layers = [layer for layer in unique(image.manifest.layers) if not layer.urls or stored.exists(layer)]

    def send(layer: Descriptor) -> None:
        name = names[layer.digest]
        sent = remote.write(layer, stored, Meter(progress, "Pushing", name, layer.size).at)
        if sent:
            status = "Pushed"
        elif mounted := remote.mounted_from(layer.digest):
            status = f"Mounted from {mounted}"
        else:
            status = "Layer already exists"
        progress(ProgressEvent(status=status, id=name))

    def send_config() -> None:
        remote.write(image.manifest.config, stored, lambda _: None)

    def stop() -> None:
        remote.stop()
        stored.stop()

    # Waiting is told for what no thread will take at once, as Docker does.
    for layer in layers[_PREPARED:]:
        progress(ProgressEvent(status="Waiting", id=names[layer.digest]))
    run_parallel([*(partial(send, d) for d in layers), send_config], width=JOBS, stopped=stopped, stop=stop)
    remote.tag(image.descriptor, image.raw)


def _names(image: StoredImage) -> dict[Digest, str]:
    """Layers go by their diff_id in a push."""
    pairs = zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True)
    return {layer.digest: short_id(diff_id) for layer, diff_id in pairs}


def _mounts(storage: Storage, reference: Reference, image: StoredImage) -> dict[Digest, str]:
    """Blobs of `image` that another repository of the same registry should have, by the names of other images."""
    wanted = {d.digest for d in (image.manifest.config, *image.manifest.layers)}
    found: dict[Digest, str] = {}
    for other in storage.images.walk():
        if not other.name.startswith(f"{reference.registry}/"):
            continue
        try:
            name = parse_reference(other.name)
            if name.repository == reference.repository or not media_types.is_manifest(other.descriptor.media_type):
                continue
            manifest = read_image(storage.content, other.descriptor).manifest
        except ProaError:
            continue  # a damaged neighbour is no reason not to push
        if UNPUBLISHED in (manifest.annotations or {}):
            continue
        for blob in (manifest.config, *manifest.layers):
            if blob.digest in wanted:
                found.setdefault(blob.digest, name.repository)
        if len(found) == len(wanted):
            break
    return found
