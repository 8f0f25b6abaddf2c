"""Descriptors, manifests, indexes and configs: a parsed view of bytes that stay the truth.

Nothing fetched is ever encoded again: these structs drop fields they do not know, so a digest would change.
Sources: image-spec descriptor.md, manifest.md, image-index.md, config.md; Docker image manifest v2 schema 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from proa.errors import Corrupt, Invalid, NotFound, Unsupported
from proa.oci import media_types
from proa.oci.digest import Digest, parse_digest
from proa.oci.platform import Platform, host_platform, nearest
from proa.oci.strict_json import strict_loads

# No more is ever parsed. What is let in from outside is less, and an administrator's to say: `proa.storage.Limits`.
MANIFEST_LIMIT = 32 << 20
CONFIG_LIMIT = 32 << 20
MAX_LAYERS = 16_384
MAX_MANIFESTS = 65_536
MAX_BLOB = 1 << 50

Annotations = dict[str, str]


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How anything refers to content: media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Annotations | None = None
    platform: Platform | None = None
    artifact_type: str | None = None
    urls: tuple[str, ...] | None = None
    data: str | None = None

    def __hash__(self) -> int:
        return hash((self.digest, self.size, self.media_type))


class Manifest(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """One image for one platform: a config and its layers, lowest first."""

    schema_version: int
    media_type: str = ""
    artifact_type: str | None = None
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor | None = None
    annotations: Annotations | None = None


class Index(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """Manifests of one image for several platforms, or an OCI layout's top level."""

    schema_version: int
    media_type: str = ""
    artifact_type: str | None = None
    manifests: list[Descriptor]
    subject: Descriptor | None = None
    annotations: Annotations | None = None


class Healthcheck(msgspec.Struct, omit_defaults=True, rename="pascal", kw_only=True):
    """How to tell that a container works; durations in nanoseconds. `on_failure` is ours, and never an image's."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    on_failure: str = ""


class RunConfig(msgspec.Struct, omit_defaults=True, rename="pascal", kw_only=True):
    """Defaults for a container: the `config` member of an image config."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None
    args_escaped: bool = False


class RootFS(msgspec.Struct, kw_only=True):
    """The layers by the digests of their uncompressed tars, lowest first."""

    type: str = "layers"
    diff_ids: list[Digest] = []


class History(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How one layer, or one metadata change, came to be."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The image JSON: platform, defaults, layers and history. Its digest is the image ID."""

    created: str | None = None
    author: str = ""
    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    config: RunConfig | None = None
    rootfs: RootFS
    history: list[History] | None = None

    @property
    def platform(self) -> Platform:
        """The platform this image runs on."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)


T = TypeVar("T")


def _view(value: Any, kind: type[T], what: str) -> T:
    if isinstance(value, dict):
        # Go writes null for an empty list or map; absent and null mean the same in every one of these documents.
        value = {k: v for k, v in value.items() if v is not None}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise Invalid(f"{what} is malformed: {e}", code="document-invalid") from None


def _check_descriptors(items: Sequence[Descriptor], what: str) -> None:
    for d in items:
        parse_digest(d.digest)
        if not 0 <= d.size <= MAX_BLOB:
            raise Invalid(f"{what} names a blob of {d.size} bytes", code="document-invalid")


def parse_manifest(raw: bytes, media_type: str | None = None) -> Manifest:
    """View `raw` as a manifest. `media_type` is what the server called it. Raises Invalid, Unsupported."""
    value = strict_loads(raw, MANIFEST_LIMIT, "manifest")
    if isinstance(value, dict) and value.get("schemaVersion") == 1:
        raise Unsupported("image manifest schema 1 is not supported: push the image again with a current client")
    if not isinstance(value, dict) or "manifests" in value:
        raise Invalid("manifest is malformed: an image manifest has config and layers, not manifests")
    manifest = _view(value, Manifest, "manifest")
    _check_media_type(manifest.media_type, media_type, media_types.MANIFESTS, "manifest")
    if len(manifest.layers) > MAX_LAYERS:
        raise Invalid(f"manifest has {len(manifest.layers)} layers, at most {MAX_LAYERS} are accepted")
    _check_descriptors([manifest.config, *manifest.layers], "manifest")
    return manifest


def parse_index(raw: bytes, media_type: str | None = None) -> Index:
    """View `raw` as an index. Raises Invalid."""
    value = strict_loads(raw, MANIFEST_LIMIT, "index")
    if not isinstance(value, dict) or "layers" in value or "config" in value:
        raise Invalid("index is malformed: an index has manifests, not config and layers")
    index = _view(value, Index, "index")
    _check_media_type(index.media_type, media_type, media_types.INDEXES, "index")
    if len(index.manifests) > MAX_MANIFESTS:
        raise Invalid(f"index has {len(index.manifests)} manifests, at most {MAX_MANIFESTS} are accepted")
    _check_descriptors(index.manifests, "index")
    return index


def _check_media_type(inside: str, outside: str | None, allowed: Sequence[str], what: str) -> None:
    # One digest must not mean two things depending on who serves it (CVE-2021-41190).
    if inside and inside not in allowed:
        raise Invalid(f"{what} has media type {inside[:100]!r}", code="document-invalid")
    if inside and outside and inside != outside:
        raise Invalid(
            f"{what} says it is {inside[:100]!r} but was served as {outside[:100]!r}", code="document-invalid"
        )


def parse_config(raw: bytes) -> ImageConfig:
    """View `raw` as an image config. Raises Invalid."""
    value = strict_loads(raw, CONFIG_LIMIT, "image config")
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        value["config"] = {k: v for k, v in value["config"].items() if v is not None}
    config = _view(value, ImageConfig, "image config")
    for diff_id in config.rootfs.diff_ids:
        parse_digest(diff_id)
    return config


def children(descriptor: Descriptor, raw: bytes) -> list[Descriptor]:
    """What `descriptor`, whose bytes are `raw`, refers to: config and layers, or manifests. Blobs have none.

    The subject of a manifest is no child: it may be absent, and is kept alive the other way round.
    """
    if media_types.is_manifest(descriptor.media_type):
        manifest = parse_manifest(raw, descriptor.media_type)
        return [manifest.config, *manifest.layers]
    if media_types.is_index(descriptor.media_type):
        return list(parse_index(raw, descriptor.media_type).manifests)
    if descriptor.media_type in media_types.SCHEMA1:
        raise Unsupported("image manifest schema 1 is not supported: push the image again with a current client")
    return []


def select_platform(index: Index, wanted: Platform | None = None) -> Descriptor:
    """The manifest for `wanted` (default: this machine). Raises NotFound that lists what there is."""
    images = [d for d in index.manifests if is_platform_image(d)]
    chosen = nearest([d.platform for d in images], wanted)
    if chosen is not None:
        return images[chosen]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    offered = ", ".join(sorted({str(d.platform) for d in images if d.platform}))
    raise NotFound(
        f"no matching manifest for {wanted or host_platform()} in the manifest list entries: "
        f"the image is offered for {offered or 'no platform'}",
        code="platform-not-found",
        hint="choose one of them with --platform" if offered else "",
    )


def is_platform_image(d: Descriptor) -> bool:
    """True for an entry of an index that is an image to run, and no attestation about one."""
    unknown = d.platform is not None and d.platform.os == "unknown"
    return not unknown and not (d.annotations or {}).get("vnd.docker.reference.type")


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The chain ID of each layer: the name of the filesystem made by it and all below (config.md, "Layer ChainID")."""
    out: list[Digest] = []
    for diff_id in diff_ids:
        out.append(chain_id(out[-1] if out else Digest(""), diff_id))
    return out


def chain_id(parent: Digest, diff_id: Digest) -> Digest:
    """The chain ID of a layer on the chain `parent`, "" for none."""
    return Digest("sha256:" + sha256(f"{parent} {diff_id}".encode()).hexdigest()) if parent else diff_id


def encode(document: msgspec.Struct) -> bytes:
    """JSON bytes of a document of our own making, members in the order of the specification."""
    return msgspec.json.encode(document)


def check_config(manifest: Manifest, config: ImageConfig) -> None:
    """The config must have one diff_id a layer. Raises Corrupt."""
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise Corrupt(
            f"image config has {len(config.rootfs.diff_ids)} diff_ids for {len(manifest.layers)} layers",
            code="config-mismatch",
        )
