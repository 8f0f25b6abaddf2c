"""Resolve what a user asked to mount: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's volumes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from proa.engine.types import ContainerConfig, HostConfig, MountPoint, MountRequest
from proa.errors import Invalid, Unsupported

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_ACCESS = frozenset({"ro", "readonly", "rw"})
_COPY = frozenset({"nocopy", "copy"})
_IGNORED = frozenset({"z", "Z", "consistent", "cached", "delegated"})
_OWN = frozenset({"U", "idmap"})
# A mount over these would hide or fake what isolation rests on (CVE-2019-16884 and the procfs family).
_FORBIDDEN = ("/proc", "/sys")
_MAX_PATH_BYTES = 4095


class VolumeWish(msgspec.Struct, frozen=True):
    """A volume that a mount asks for; without a name it is an anonymous one."""

    name: str
    target: str
    driver: str = ""
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class MountSources(Protocol):
    """Where mounts that are no paths of the host come from."""

    def volume(self, wish: VolumeWish) -> tuple[str, str]:
        """Name and host directory of a volume, which is made when it is new."""
        ...

    def image(self, name: str) -> str:
        """The chain ID of a local image's file system."""
        ...

    def mounts_of(self, container: str) -> list[MountPoint]:
        """What another container mounts."""
        ...


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


def parse_bind(text: str, sources: MountSources) -> MountPoint:
    """One `-v SOURCE:TARGET[:OPTIONS]` or `-v TARGET`. Raises Invalid; makes a missing bind source as Docker does."""
    parts = text.split(":")
    if len(parts) == 1:
        target = clean_target(text)
        name, source = sources.volume(VolumeWish("", target))
        return MountPoint(type="volume", source=source, destination=target, name=name, driver="local")
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise Invalid(f"invalid volume specification: '{text}'", code="mount-invalid")
    options = parts[2].split(",") if len(parts) == 3 and parts[2] else []
    access = [o for o in options if o in _ACCESS]
    propagations = [o for o in options if o in _PROPAGATION]
    copies = [o for o in options if o in _COPY]
    unknown = set(options) - _ACCESS - _PROPAGATION - _COPY - _IGNORED - _OWN
    host_path = parts[0].startswith("/")
    if len(access) > 1 or len(propagations) > 1 or len(copies) > 1 or unknown or (copies and host_path):
        raise Invalid(f"invalid mode: {parts[2]} in volume specification '{text}'", code="mount-invalid")
    point = MountPoint(
        type="bind" if host_path else "volume",
        source="",
        destination=clean_target(parts[1]),
        mode=",".join(options),
        rw=access in ([], ["rw"]),
        nocopy=copies == ["nocopy"],
        chown="U" in options,
    )
    if host_path:
        point.source = os.path.normpath(parts[0])
        point.propagation = "".join(propagations) or "rprivate"
        if not os.path.lexists(point.source):
            _make_source(point.source)
    else:
        point.name, point.source = sources.volume(VolumeWish(parts[0], point.destination))
        point.driver = "local"
    return point


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


def _subpath(options: dict[str, Any]) -> str:
    """A path inside what is mounted. Raises Invalid for one that is absolute or leads up."""
    path = str(options.get("Subpath") or "")
    if path.startswith("/") or "\0" in path or ".." in path.split("/") or len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise Invalid(f"subpath must be a relative path within the volume: {path!r}", code="subpath-invalid")
    return os.path.normpath(path) if path else ""


def resolve_mount(request: MountRequest, sources: MountSources) -> MountPoint:
    """One `--mount`. Raises Invalid, Unsupported."""
    point = MountPoint(type=request.type, source="", destination=clean_target(request.target), rw=not request.read_only)
    if request.type == "bind":
        _bind(point, request.source, request.bind_options or {})
    elif request.type == "volume":
        options = request.volume_options or {}
        driver = options.get("DriverConfig") or {}
        point.subpath = _subpath(options)
        point.nocopy = bool(options.get("NoCopy"))
        wish = VolumeWish(
            request.source,
            point.destination,
            str(driver.get("Name") or ""),
            dict(driver.get("Options") or {}),
            dict(options.get("Labels") or {}),
        )
        point.name, point.source = sources.volume(wish)
        point.driver = "local"
    elif request.type == "image":
        if not request.source:
            raise Invalid('invalid mount config for type "image": field Source must not be empty', code="mount-invalid")
        point.subpath = _subpath(request.image_options or {})
        point.name, point.source, point.rw = request.source, sources.image(request.source), False
    elif request.type == "tmpfs":
        options = request.tmpfs_options or {}
        mode = []
        if options.get("SizeBytes"):
            mode.append(f"size={_number(options['SizeBytes'])}")
        if options.get("Mode"):
            mode.append(f"mode={_number(options['Mode']):o}")
        mode += ["=".join(map(str, words)) for words in options.get("Options") or []]
        point.mode = ",".join(mode)
    else:
        raise Unsupported(f"mount type {request.type!r} is not supported", code="mount-type")
    return point


def _bind(point: MountPoint, source: str, options: dict[str, Any]) -> None:
    if not source.startswith("/"):
        raise Invalid(
            f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute",
            code="mount-invalid",
        )
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
    plain, forced = bool(options.get("ReadOnlyNonRecursive")), bool(options.get("ReadOnlyForceRecursive"))
    if plain and forced:
        raise Invalid(
            "mount options conflict: ReadOnlyNonRecursive and ReadOnlyForceRecursive cannot both be set",
            code="mount-invalid",
        )
    if forced and point.rw:
        raise Invalid("mount option ReadOnlyForceRecursive needs a read-only mount", code="mount-invalid")
    if forced and propagation not in ("private", "rprivate"):
        raise Invalid('mount option ReadOnlyForceRecursive requires propagation "rprivate"', code="mount-invalid")
    point.source, point.propagation = source, propagation
    point.recursive = not options.get("NonRecursive")
    point.recursive_ro = not plain


def resolve_mounts(config: ContainerConfig, host: HostConfig, sources: MountSources) -> list[MountPoint]:
    """Everything to mount beyond the defaults, each destination once. Raises Invalid on a duplicate."""
    found: dict[str, MountPoint] = {}

    def add(point: MountPoint) -> None:
        if point.destination in found:
            raise Invalid(f"Duplicate mount point: {point.destination}", code="mount-duplicate")
        found[point.destination] = point

    for text in host.binds or []:
        add(parse_bind(text, sources))
    for request in host.mounts or []:
        add(resolve_mount(request, sources))
    for target, options in (host.tmpfs or {}).items():
        add(MountPoint(type="tmpfs", source="", destination=clean_target(target), mode=options))
    for point in _of_others(host.volumes_from or [], sources):
        found.setdefault(point.destination, point)
    for target in config.volumes or {}:
        cleaned = clean_target(target)
        if cleaned not in found:
            name, source = sources.volume(VolumeWish("", cleaned))
            found[cleaned] = MountPoint(type="volume", source=source, destination=cleaned, name=name, driver="local")
    return [found[key] for key in sorted(found, key=lambda d: (d.count("/"), d))]


def _of_others(names: Iterable[str], sources: MountSources) -> Iterable[MountPoint]:
    """`--volumes-from CONTAINER[:ro|rw]`: the binds and volumes of others; what comes first wins."""
    for text in names:
        container, _, mode = text.partition(":")
        if not container or mode not in ("", "ro", "rw", "z", "Z"):
            raise Invalid(f"invalid mode: {mode}" if container else "invalid volumes-from", code="mount-invalid")
        for theirs in sources.mounts_of(container):
            if theirs.type not in ("bind", "volume"):
                continue
            point = msgspec.structs.replace(theirs, nocopy=True)
            if mode == "ro":
                point.rw = False
            if point.type == "volume":
                sources.volume(VolumeWish(point.name, point.destination))
            yield point
