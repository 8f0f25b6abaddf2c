"""Images in registries: `/distribution`, what `proa image inspect --remote` shows, and search results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from proa.oci import Descriptor, Platform, Reference, ShortNames
from proa.transfer.inspecting import RemoteImage, remote_platforms
from proa.transfer.searching import Found


def distribution(image: RemoteImage) -> dict[str, Any]:
    """`GET /distribution/{name}/json`."""
    platforms = [_platform(platform) for platform in remote_platforms(image) if platform.architecture]
    return {"Descriptor": descriptor(image.root), "Platforms": platforms}


def descriptor(found: Descriptor) -> dict[str, Any]:
    """A descriptor as the API has it: as in the specification."""
    out: dict[str, Any] = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
    if found.platform is not None:
        out["platform"] = _platform(found.platform)
    return out


def _platform(platform: Platform) -> dict[str, Any]:
    out: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        out["os.version"] = platform.os_version
    if platform.variant:
        out["variant"] = platform.variant
    return out


def inspect(image: RemoteImage, reference: Reference, names: ShortNames) -> dict[str, Any]:
    """One image of a registry, with the members that `GET /images/{name}/json` has where there is something to say.

    Size is what a pull would download; Manifests lists the images of an index.
    """
    repository = names.familiar_repository(reference)
    out: dict[str, Any] = {
        "Id": image.manifest.config.digest if image.manifest else "",
        "RepoTags": [f"{repository}:{reference.tag}"] if reference.tag else [],
        "RepoDigests": [f"{repository}@{image.root.digest}"],
        "Descriptor": descriptor(image.root),
    }
    if image.descriptor != image.root:
        out["Manifests"] = [descriptor(entry) for entry in image.entries]
    if image.config is not None and image.manifest is not None:
        document: dict[str, Any] = json.loads(image.config_raw)
        out |= {
            "Created": image.config.created or "0001-01-01T00:00:00Z",
            "Author": image.config.author,
            "Architecture": image.config.architecture,
            "Variant": image.config.variant,
            "Os": image.config.os,
            "Size": sum(layer.size for layer in image.manifest.layers),
            "Config": document.get("config") or {},
            "RootFS": {"Type": "layers", "Layers": list(image.config.rootfs.diff_ids)},
            "Layers": [descriptor(layer) for layer in image.manifest.layers],
        }
    return out


def search(results: Iterable[Found]) -> list[dict[str, Any]]:
    """`GET /images/search`."""
    return [
        {
            "name": found.name,
            "description": found.description,
            "star_count": found.stars,
            "is_official": found.official,
            "is_automated": found.automated,
        }
        for found in results
    ]
