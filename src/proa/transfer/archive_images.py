"""What an archive's documents say: which images it has, under which names (image-spec image-layout.md, docker save)."""

from __future__ import annotations

from typing import Any

import msgspec

from proa.errors import Corrupt, Invalid, NotFound
from proa.oci import (
    CONFIG_LIMIT,
    Descriptor,
    Digest,
    Platform,
    Reference,
    media_types,
    parse_config,
    parse_index,
    parse_reference,
    select_platform,
    strict_loads,
)
from proa.storage.content import ContentStore, write_blob
from proa.storage.limits import Limits
from proa.transfer.archive_members import Member, Members
from proa.transfer.layout import REF_NAME
from proa.transfer.stored_image import (
    OCI_LAYERS,
    make_image,
    parse_image_config,
    parse_image_manifest,
    plain,
    read_image,
)

# What containerd and Docker 25 and later write beside the name the specification knows.
IMAGE_NAME = "io.containerd.image.name"


class ArchivedImage(msgspec.Struct, frozen=True):
    """A manifest whose documents and layers are in the store now, and the names the archive gives it."""

    descriptor: Descriptor
    names: tuple[str, ...]


def read_images(members: Members, content: ContentStore, platform: Platform | None = None) -> list[ArchivedImage]:
    """The images of an archive, by its index.json (their manifests unchanged), else by its manifest.json.

    Raises Invalid (no image archive, or hostile), NotFound (something it names is missing), Corrupt.
    """
    tags = _tags_by_config(members) if "manifest.json" in members else {}
    if "index.json" in members and "oci-layout" in members:
        return _oci_images(members, content, platform, tags)
    if "manifest.json" in members:
        return _docker_images(members, content)
    raise Invalid(
        "the stream is no image archive: it has neither index.json nor manifest.json",
        code="archive-invalid",
        hint="load reads what save wrote; for a file system archive use import",
    )


def _oci_images(
    members: Members, content: ContentStore, platform: Platform | None, tags: dict[str, list[str]]
) -> list[ArchivedImage]:
    found: dict[Digest, ArchivedImage] = {}
    manifests = parse_index(members.document("index.json")).manifests
    _check_images(members.limits, len(manifests))
    for named in manifests:
        descriptor = _resolve(members, content, plain(named), platform)
        if descriptor is None:
            continue
        image = read_image(content, descriptor)
        parse_image_config(image.config_raw, image.manifest, platform)
        for layer in image.manifest.layers:
            if (name := _blob_name(layer)) in members:
                members.store(members.get(name))
            if content.info(layer.digest).size != layer.size:
                raise Corrupt(f"layer {layer.digest} is not as long as its manifest says", code="size-mismatch")
        names = _annotated_names(named.annotations or {}) or tags.get(image.manifest.config.digest, [])
        before = found.get(descriptor.digest)
        merged = dict.fromkeys([*(before.names if before else ()), *names])
        found[descriptor.digest] = ArchivedImage(descriptor, tuple(merged))
    return list(found.values())


def _resolve(
    members: Members, content: ContentStore, descriptor: Descriptor, platform: Platform | None
) -> Descriptor | None:
    """The image manifest a top-level descriptor means; None for what is no image (attestations, artifacts)."""
    if media_types.is_manifest(descriptor.media_type):
        raw = _blob_document(members, content, descriptor)
        manifest = parse_image_manifest(raw, descriptor)
        _blob_document(members, content, manifest.config)
        return descriptor
    if media_types.is_index(descriptor.media_type):
        index = parse_index(_blob_document(members, content, descriptor), descriptor.media_type)
        chosen = plain(select_platform(index, platform))
        return _resolve(members, content, chosen, platform) if media_types.is_manifest(chosen.media_type) else None
    return None


def _blob_document(members: Members, content: ContentStore, descriptor: Descriptor) -> bytes:
    """A small blob of the archive; the store has it afterwards."""
    members.limits.check_size(descriptor)
    raw = members.document(_blob_name(descriptor))
    if len(raw) != descriptor.size or write_blob(content, raw, descriptor.media_type).digest != descriptor.digest:
        raise Corrupt(f"blob {descriptor.digest} of the archive is not what its name says", code="digest-mismatch")
    members.limits.admit(descriptor, raw)
    return raw


def _blob_name(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _annotated_names(annotations: dict[str, str]) -> list[str]:
    """Names from a descriptor's annotations; a bare tag such as `latest` names no repository and is none."""
    for text in (annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, "")):
        if text and (text == annotations.get(IMAGE_NAME) or ":" in text or "/" in text):
            return [_tag_name(text)]
    return []


def _tag_name(text: Any) -> str:
    if not isinstance(text, str):
        raise Invalid("the archive has a tag that is no text", code="archive-invalid")
    reference = parse_reference(text)
    if reference.digest and reference.tag:
        reference = Reference(registry=reference.registry, repository=reference.repository, tag=reference.tag)
    return reference.name


def _docker_entries(members: Members) -> list[dict[str, Any]]:
    """manifest.json of docker save: [{Config, RepoTags, Layers}], checked."""
    limits = members.limits
    value = strict_loads(members.document("manifest.json"), CONFIG_LIMIT, "manifest.json")
    if not isinstance(value, list):
        raise Invalid("manifest.json of the archive is no list of images", code="archive-invalid")
    _check_images(limits, len(value))
    for entry in value:
        layers = (entry.get("Layers") or []) if isinstance(entry, dict) else None
        tags = (entry.get("RepoTags") or []) if isinstance(entry, dict) else None
        if not isinstance(layers, list) or not isinstance(tags, list) or not isinstance(entry.get("Config"), str):
            raise Invalid("manifest.json of the archive is malformed", code="archive-invalid")
        if len(tags) > limits.archive_names:
            limits.exceeded("archive_names", f"an image of the archive has {len(tags)} names", entry["Config"])
        if len(layers) > limits.manifest_layers:
            limits.exceeded("manifest_layers", f"an image of the archive has {len(layers)} layers", entry["Config"])
    return value


def _check_images(limits: Limits, count: int) -> None:
    if count > limits.archive_images:
        limits.exceeded("archive_images", f"the archive has {count} images")


def _tags_by_config(members: Members) -> dict[str, list[str]]:
    """The RepoTags that manifest.json has beside an index.json, by config digest."""
    return {
        members.get(entry["Config"]).digest: [_tag_name(tag) for tag in entry.get("RepoTags") or []]
        for entry in _docker_entries(members)
    }


def _docker_images(members: Members, content: ContentStore) -> list[ArchivedImage]:
    found = []
    for entry in _docker_entries(members):
        raw = members.document(entry["Config"])
        diff_ids = parse_config(raw).rootfs.diff_ids
        files = [members.get(name) for name in entry.get("Layers") or []]
        if len(files) != len(diff_ids):
            raise Corrupt(
                f"{entry['Config']} of the archive has {len(diff_ids)} diff_ids for {len(files)} layers",
                code="config-mismatch",
            )
        for member, diff_id in zip(files, diff_ids, strict=True):
            if member.compression == "none" and member.digest != diff_id:
                raise Corrupt(
                    f"a layer of the archive is {member.digest}, the image config says {diff_id}",
                    code="diff-id-mismatch",
                    subject=diff_id,
                )
        descriptor = make_image(content, raw, [_layer(members, content, member) for member in files])
        names = dict.fromkeys(_tag_name(tag) for tag in entry.get("RepoTags") or [])
        found.append(ArchivedImage(descriptor, tuple(names)))
    return found


def _layer(members: Members, content: ContentStore, member: Member) -> Descriptor:
    if member.document:
        raise Invalid("the archive names a document as a layer", code="archive-invalid")
    members.store(member)
    try:
        content.info(member.digest)
    except NotFound:
        raise Corrupt(f"layer {member.digest} of the archive is not there", code="archive-incomplete") from None
    return Descriptor(media_type=OCI_LAYERS[member.compression], digest=member.digest, size=member.size)
