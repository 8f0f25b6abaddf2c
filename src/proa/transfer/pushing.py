"""Push: an image from the store to a registry, unchanged when a registry has seen it, compressed when it is ours."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from proa.errors import Invalid, NotFound, ProaError, Unsupported
from proa.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    Platform,
    Reference,
    is_platform_image,
    media_types,
    parse_index,
    parse_reference,
)
from proa.storage import Storage
from proa.storage.content import read_blob
from proa.storage.layers.encoders import GZIP, Compression
from proa.transfer.compress import publish_image
from proa.transfer.copying import copy, unique
from proa.transfer.credentials import Credentials
from proa.transfer.parallel import run_parallel
from proa.transfer.progress import Meter, Progress, ProgressEvent, one_at_a_time, short_id, silent, tell_warnings
from proa.transfer.registries import Registries
from proa.transfer.remote import Remote
from proa.transfer.stored import Stored
from proa.transfer.stored_image import UNPUBLISHED, StoredImage, image_manifests, plain, read_image

_PREPARED = 5


def push(
    storage: Storage,
    reference: Reference,
    *,
    platform: Platform | None = None,
    credentials: Credentials | None = None,
    progress: Progress = silent,
    plain_http: bool | None = None,
    insecure: bool = False,
    registries: Registries | None = None,
    compression: Compression = GZIP,
    stopped: threading.Event | None = None,
) -> Descriptor:
    """Push the image called `reference` to the registry in its name; returns the manifest that is there now.

    An image whose layers are plain tars of our own making (load, import, commit) is compressed first, once: its names
    then point to the compressed image, so the next push finds everything in place. Its ID does not change by that.
    A name that points to an index is pushed with all its platforms.

    platform:    of an index, push only the image for this one
    compression: of layers that are plain yet
    progress: called from several threads, one at a time
    Raises NotFound, Unauthorized, Denied, Unavailable, TimedOut, Corrupt, Invalid, Exhausted, Cancelled.
    """
    if reference.digest and not reference.tag:
        raise Invalid("cannot push a digest reference", code="push-digest", subject=reference.familiar)
    progress = one_at_a_time(progress)
    with storage.leases.hold(f"push {reference.name}"):
        progress(ProgressEvent(status=f"The push refers to repository [{reference.registry}/{reference.repository}]"))
        roots = _images(storage, storage.images.get(reference.name).descriptor, platform)
        names: dict[Digest, str] = {}
        for image in roots.images:
            names |= _names(image)
        for name in dict.fromkeys(names.values()):
            progress(ProgressEvent(status="Preparing", id=name))
        if not roots.whole and roots.images[0].is_unpublished:
            image = publish_image(storage, roots.images[0], stopped, compression)
            roots, names = _Roots([image]), _names(image)
        remote = Remote(
            reference,
            credentials,
            plain_http,
            insecure=insecure,
            mount_from=_mounts(storage, reference, roots.images),
            registries=registries,
        )
        try:
            _upload(
                Stored(storage.content), remote, roots, names, progress, stopped, (registries or Registries()).uploads
            )
            tell_warnings(remote.warnings(), progress)
        finally:
            remote.close()
    descriptor = roots.root
    tag = reference.tag or ""
    progress(ProgressEvent(status=f"{tag}: digest: {descriptor.digest} size: {descriptor.size}"))
    progress(ProgressEvent(aux={"Tag": tag, "Digest": descriptor.digest, "Size": descriptor.size}))
    return descriptor


class _Roots(NamedTuple):
    """What is pushed: one image, or an index (descriptor and bytes) with its images and other manifests."""

    images: list[StoredImage]
    whole: tuple[Descriptor, bytes] | None = None
    others: Sequence[Descriptor] = ()

    @property
    def root(self) -> Descriptor:
        """What gets the tag."""
        return self.whole[0] if self.whole else self.images[0].descriptor


def _images(storage: Storage, descriptor: Descriptor, platform: Platform | None) -> _Roots:
    """The documents of what is to be pushed. Raises NotFound when some of an index is not here, Invalid."""
    if not media_types.is_index(descriptor.media_type) or platform is not None:
        image = read_image(storage.content, descriptor, platform)
        if platform is not None and not image.config.platform.matches(platform):
            raise NotFound(
                f"the image is for {image.config.platform}, {platform} was asked for", code="platform-not-found"
            )
        return _Roots([image])
    raw = read_blob(storage.content, descriptor, MANIFEST_LIMIT)
    images, others = [], []
    for child in parse_index(raw, descriptor.media_type).manifests:
        try:
            if is_platform_image(child) and media_types.is_manifest(child.media_type):
                images.append(read_image(storage.content, child))
                continue
            others.append(child)
            storage.content.info(child.digest)
        except NotFound:
            raise NotFound(
                f"the image for {child.platform or child.digest} is not here, so the index cannot be pushed whole",
                code="platform-not-found",
                subject=child.digest,
                hint="pull it with --all-platforms, or push one platform with --platform",
            ) from None
        except Unsupported:
            others.append(child)  # an artifact among images
    if unpublished := next((image for image in images if image.is_unpublished), None):
        raise Invalid(
            f"{unpublished.descriptor.digest} of the index has layers that were never compressed",
            code="unpublished-in-index",
            hint="push that image by itself, then make the index of what is in the registry",
        )
    return _Roots(images, (plain(descriptor), raw), others)


def _upload(
    stored: Stored,
    remote: Remote,
    roots: _Roots,
    names: dict[Digest, str],
    progress: Progress,
    stopped: threading.Event | None,
    width: int,
) -> None:
    every = [layer for image in roots.images for layer in image.manifest.layers]
    layers = [layer for layer in unique(every) if not layer.urls or stored.exists(layer)]

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

    def send_config(config: Descriptor) -> None:
        remote.write(config, stored, lambda _: None)

    def stop() -> None:
        remote.stop()
        stored.stop()

    # Waiting is told for what no thread will take at once, as Docker does.
    for layer in layers[_PREPARED:]:
        progress(ProgressEvent(status="Waiting", id=names[layer.digest]))
    configs = unique([image.manifest.config for image in roots.images])
    tasks = [*(partial(send, d) for d in layers), *(partial(send_config, d) for d in configs)]
    run_parallel(tasks, width=width, stopped=stopped, stop=stop)
    if roots.whole is None:
        remote.tag(roots.images[0].descriptor, roots.images[0].raw)
        return
    for image in roots.images:
        remote.put(image.descriptor, image.raw)
    for other in roots.others:
        copy(stored, _Untagged(remote), other, progress=progress, stopped=stopped)
    remote.tag(*roots.whole)


class _Untagged:
    """A registry as the sink of a part of an index: what is its root there is put, and gets no name."""

    def __init__(self, remote: Remote) -> None:
        self.exists, self.write, self.put, self.tag = remote.exists, remote.write, remote.put, remote.put
        self.stop = remote.stop


def _names(image: StoredImage) -> dict[Digest, str]:
    """Layers go by their diff_id in a push."""
    pairs = zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True)
    return {layer.digest: short_id(diff_id) for layer, diff_id in pairs}


def _mounts(storage: Storage, reference: Reference, images: Sequence[StoredImage]) -> dict[Digest, str]:
    """Blobs of `images` that another repository of the same registry should have, by the names of other images."""
    wanted = {d.digest for image in images for d in (image.manifest.config, *image.manifest.layers)}
    found: dict[Digest, str] = {}
    for other in storage.images.walk():
        if not other.name.startswith(f"{reference.registry}/"):
            continue
        try:
            name = parse_reference(other.name)
            if name.repository == reference.repository:
                continue
            manifests = [
                read_image(storage.content, d).manifest for d in image_manifests(storage.content, other.descriptor)
            ]
        except ProaError:
            continue  # a damaged neighbour is no reason not to push
        for manifest in manifests:
            if UNPUBLISHED in (manifest.annotations or {}):
                continue
            for blob in (manifest.config, *manifest.layers):
                if blob.digest in wanted:
                    found.setdefault(blob.digest, name.repository)
        if len(found) == len(wanted):
            break
    return found
