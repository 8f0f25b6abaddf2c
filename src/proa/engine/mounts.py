"""Resolve what a user asked to mount: `-v`, `--mount`, `--tmpfs` and the image's volumes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from proa.engine.types import ContainerConfig, HostConfig, MountPoint, MountRequest
from proa.errors import Invalid, Unsupported

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_ACCESS = frozenset({"ro", "readonly", "rw"})
_IGNORED = frozenset({"z", "Z", "consistent", "cached", "delegated", "nocopy", "copy", "idmap"})
# A mount over these would hide or fake what isolation rests on (CVE-2019-16884 and the procfs family).
_FORBIDDEN = ("/proc", "/sys")

# Gives (name, host directory) of a volume, making it when it is new; an empty name asks for an anonymous one.
VolumeResolver = Callable[[str], tuple[str, str]]


def clean_target(path: str) -> str:
    """The absolute, normalised destination. Raises Invalid with Docker's words."""
    if not path.startswith("/") or "\0" in path or "\n" in path:
        raise Invalid(f"invalid mount path: {path!r} mount path must be absolute", code="mount-invalid")
    cleaned = os.path.normpath(path)
    cleaned = "/" + cleaned.lstrip("/")
    if cleaned == "/":
        raise Invalid("invalid specification: destination can't be '/'", code="mount-invalid")
    for root in _FORBIDDEN:
        if cleaned == root or cleaned.startswith(root + "/"):
            raise Invalid(
                f"invalid mount destination {cleaned}: nothing may be mounted over {root}", code="mount-denied"
            )
    return cleaned


def parse_bind(text: str, volume: VolumeResolver) -> MountPoint:
    """One `-v SOURCE:TARGET[:OPTIONS]` or `-v TARGET`. Raises Invalid; makes a missing bind source as Docker does."""
    parts = text.split(":")
    if len(parts) == 1:
        name, source = volume("")
        return MountPoint(type="volume", source=source, destination=clean_target(text), name=name, driver="local")
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise Invalid(f"invalid volume specification: '{text}'", code="mount-invalid")
    options = parts[2].split(",") if len(parts) == 3 and parts[2] else []
    access = [o for o in options if o in _ACCESS]
    propagations = [o for o in options if o in _PROPAGATION]
    if len(access) > 1 or len(propagations) > 1 or set(options) - _ACCESS - _PROPAGATION - _IGNORED:
        raise Invalid(f"invalid mode: {parts[2]} in volume specification '{text}'", code="mount-invalid")
    readonly, propagation = access not in ([], ["rw"]), "".join(propagations)
    target = clean_target(parts[1])
    if parts[0].startswith("/"):
        source = os.path.normpath(parts[0])
        if not os.path.lexists(source):
            _make_source(source)
        return MountPoint(
            type="bind",
            source=source,
            destination=target,
            mode=",".join(options),
            rw=not readonly,
            propagation=propagation or "rprivate",
        )
    name, source = volume(parts[0])
    return MountPoint(
        type="volume",
        source=source,
        destination=target,
        mode=",".join(options),
        rw=not readonly,
        name=name,
        driver="local",
    )


def _make_source(path: str) -> None:
    """Make a directory that is to be mounted, as Docker does. Raises Invalid."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Invalid(
            f"error while creating mount source path {path!r}: {reason}", code="mount-source", subject=path
        ) from None


def _number(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise Invalid(f"invalid tmpfs option {value!r}: want a number", code="mount-invalid")
    return value


def resolve_mount(request: MountRequest, volume: VolumeResolver) -> MountPoint:
    """One `--mount`. Raises Invalid, Unsupported."""
    target = clean_target(request.target)
    if request.type == "bind":
        source = request.source
        if not source.startswith("/"):
            raise Invalid(
                f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute",
                code="mount-invalid",
            )
        options = request.bind_options or {}
        if not os.path.lexists(source):
            if not options.get("CreateMountpoint"):
                raise Invalid(
                    f'invalid mount config for type "bind": bind source path does not exist: {source}',
                    code="mount-source-missing",
                )
            _make_source(source)
        propagation = str(options.get("Propagation") or "rprivate")
        if propagation not in _PROPAGATION:
            raise Invalid(f"invalid propagation {propagation!r}", code="mount-invalid")
        return MountPoint(
            type="bind", source=source, destination=target, rw=not request.read_only, propagation=propagation
        )
    if request.type == "volume":
        name, source = volume(request.source)
        return MountPoint(
            type="volume", source=source, destination=target, rw=not request.read_only, name=name, driver="local"
        )
    if request.type == "tmpfs":
        options = request.tmpfs_options or {}
        mode = []
        if options.get("SizeBytes"):
            mode.append(f"size={_number(options['SizeBytes'])}")
        if options.get("Mode"):
            mode.append(f"mode={_number(options['Mode']):o}")
        return MountPoint(type="tmpfs", source="", destination=target, mode=",".join(mode), rw=not request.read_only)
    raise Unsupported(f"mount type {request.type!r} is not supported", code="mount-type")


def resolve_mounts(
    config: ContainerConfig, host: HostConfig, image_volumes: list[str], volume: VolumeResolver
) -> list[MountPoint]:
    """Everything to mount beyond the defaults, each destination once. Raises Invalid on a duplicate."""
    found: dict[str, MountPoint] = {}

    def add(point: MountPoint) -> None:
        if point.destination in found:
            raise Invalid(f"Duplicate mount point: {point.destination}", code="mount-duplicate")
        found[point.destination] = point

    for text in host.binds or []:
        add(parse_bind(text, volume))
    for request in host.mounts or []:
        add(resolve_mount(request, volume))
    for target, options in (host.tmpfs or {}).items():
        add(MountPoint(type="tmpfs", source="", destination=clean_target(target), mode=options))
    for target in [*(config.volumes or {}), *image_volumes]:
        cleaned = clean_target(target)
        if cleaned not in found:
            name, source = volume("")
            found[cleaned] = MountPoint(
                type="volume", source=source, destination=cleaned, name=name, driver="local", mode=""
            )
    return [found[key] for key in sorted(found, key=lambda d: (d.count("/"), d))]
