"""Images: the list, inspect, history, and what removing them did."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from proa.api.messages import Version
from proa.engine.clock import parse_rfc3339, rfc3339
from proa.engine.types import ImageRecord, RemovedImage
from proa.oci import DOCKER_NAMES, ShortNames, parse_reference

if TYPE_CHECKING:
    from proa.engine.image_manifests import ManifestSummary

# What Docker's own daemon shows in Config before API 1.50, set or not.
_CONFIG_DEFAULTS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def tags_and_digests(image: ImageRecord, names: ShortNames = DOCKER_NAMES) -> tuple[list[str], list[str]]:
    """`RepoTags` and `RepoDigests`, as short as they may be."""
    found = [parse_reference(name) for name in image.names]
    tags = [f"{names.familiar_repository(r)}:{r.tag}" for r in found if r.tag]
    digests = [parse_reference(digest) for digest in image.digests]
    return tags, [f"{names.familiar_repository(r)}@{r.digest}" for r in digests]


def summary(image: ImageRecord, version: Version, names: ShortNames = DOCKER_NAMES, shared: int = -1) -> dict[str, Any]:
    """One entry of `GET /images/json`; `shared` bytes of it belong to other images too (-1: not asked)."""
    tags, digests = tags_and_digests(image, names)
    if not tags and version < (1, 43):
        tags, digests = ["<none>:<none>"], digests or ["<none>@<none>"]
    out: dict[str, Any] = {
        "Containers": image.containers or -1,
        "Created": int(parse_rfc3339(image.created)),
        "Id": image.id,
        "Labels": image.labels or None,
        "ParentId": image.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.size,
    }
    if version < (1, 44):
        out["VirtualSize"] = image.size
    if version >= (1, 48):
        out["Descriptor"] = _descriptor(image)
    return out


def manifest_summary(summary: ManifestSummary) -> dict[str, Any]:
    """One of the `Manifests` of an entry of `GET /images/json`."""
    out: dict[str, Any] = {
        "ID": summary.descriptor.digest,
        "Descriptor": msgspec.to_builtins(summary.descriptor),
        "Available": summary.available,
        "Size": {"Content": summary.content_size, "Total": summary.content_size + summary.unpacked_size},
        "Kind": summary.kind,
    }
    if summary.kind == "image":
        platform = msgspec.to_builtins(summary.platform) if summary.platform else {}
        out["ImageData"] = {
            "Platform": {"architecture": "", "os": "", **platform},
            "Containers": summary.containers,
            "Size": {"Unpacked": summary.unpacked_size},
        }
    elif summary.kind == "attestation":
        out["AttestationData"] = {"For": (summary.descriptor.annotations or {}).get("vnd.docker.reference.digest", "")}
    return out


def _descriptor(image: ImageRecord) -> dict[str, Any]:
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest,
        "size": image.manifest_size,
    }


def inspect(image: ImageRecord, version: Version, names: ShortNames = DOCKER_NAMES) -> dict[str, Any]:
    """`GET /images/{name}/json`; Config is the image's own document, so members we do not know are shown too."""
    document: dict[str, Any] = json.loads(image.config_raw)
    tags, digests = tags_and_digests(image, names)
    config = document.get("config") or {}
    history = document.get("history") or []
    system, _, rest = image.platform.partition("/")
    architecture, _, variant = rest.partition("/")
    out: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": image.parent,
        "Comment": str((history[-1] or {}).get("comment", "")) if history else "",
        "Created": image.created or "0001-01-01T00:00:00Z",
        "DockerVersion": str(document.get("docker_version") or ""),
        "Author": str(document.get("author") or ""),
        "Config": config if version >= (1, 50) else _CONFIG_DEFAULTS | config,
        "Architecture": architecture,
    }
    if variant:
        out["Variant"] = variant
    out |= {
        "Os": system,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay", "Data": None},
        "RootFS": {"Type": "layers", "Layers": (document.get("rootfs") or {}).get("diff_ids") or []},
        "Metadata": {"LastTagTime": rfc3339(int(image.tagged * 1e9)) if image.tagged else "0001-01-01T00:00:00Z"},
    }
    if version < (1, 45):
        out |= {"Container": "", "ContainerConfig": dict(_CONFIG_DEFAULTS)}
    if version < (1, 44):
        out["VirtualSize"] = image.size
    if version >= (1, 48):
        out["Descriptor"] = _descriptor(image)
    return out


def history(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`GET /images/{name}/history`, newest first."""
    return [
        {
            "Id": entry.get("id") or "<missing>",
            "Created": int(parse_rfc3339(str(entry.get("created") or ""))),
            "CreatedBy": entry.get("created_by") or "",
            "Tags": entry.get("tags") or None,
            "Size": entry.get("size") or 0,
            "Comment": entry.get("comment") or "",
        }
        for entry in entries
    ]


def removed(steps: Iterable[RemovedImage]) -> list[dict[str, str]]:
    """What `DELETE /images/{name}` and prune answer."""
    return [{"Untagged": step.untagged} if step.untagged else {"Deleted": step.deleted} for step in steps]
