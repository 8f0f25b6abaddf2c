"""The parts of an OCI config.json that the runtime obeys, as checked types (runtime-spec config.md, config-linux.md).

Unknown fields are ignored, as the specification asks; known ones that proa does not obey are declared here so that
`plan` can refuse them. Extensions of proa:

- `process.user.username` is resolved inside the container's root (`users.resolve_user`), `additionalGroups` too;
- annotation `proa.init: "true"` runs the process below a reaper as process 1;
- annotation `proa.seccomp: "default"` stands for `seccomp.default_profile` of the process's capabilities.
"""

from __future__ import annotations

from proa.errors import Invalid
from proa.runtime.shapes import (
    Mismatch,
    Shape,
    anything,
    boolean,
    convert,
    field,
    integer,
    listed,
    mapped,
    optional,
    shaped,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeVar

    S = TypeVar("S", bound=Shape)

_ID = integer(0, (1 << 32) - 2)
_UNSIGNED = integer(0, (1 << 63) - 1)
_TEXTS = listed(text)


class User(Shape):
    """Who the process runs as."""

    uid: int = field(_ID, 0)
    gid: int = field(_ID, 0)
    additional_gids: Sequence[int] = field(listed(_ID), ())
    umask: int | None = field(optional(integer(0, 0o777)), None)
    username: str | None = field(optional(text), None)
    additional_groups: Sequence[str] = field(_TEXTS, ())


class Capabilities(Shape):
    """Capability names by set."""

    bounding: Sequence[str] = field(_TEXTS, ())
    effective: Sequence[str] = field(_TEXTS, ())
    permitted: Sequence[str] = field(_TEXTS, ())
    inheritable: Sequence[str] = field(_TEXTS, ())
    ambient: Sequence[str] = field(_TEXTS, ())


class Rlimit(Shape):
    """One resource limit."""

    type: str = field(text)
    hard: int = field(integer(-1))
    soft: int = field(integer(-1))


class Box(Shape):
    """Console size in characters."""

    height: int = field(integer(0, 65535), 0)
    width: int = field(integer(0, 65535), 0)


class IoPriority(Shape):
    """I/O scheduling class and priority."""

    class_: str = field(text, "", wire="class")
    priority: int = field(integer(0, 7), 0)


class Scheduler(Shape):
    """Scheduling policy; times in nanoseconds."""

    policy: str = field(text)
    nice: int = field(integer(-20, 19), 0)
    priority: int = field(integer(0, 99), 0)
    flags: Sequence[str] = field(_TEXTS, ())
    runtime: int = field(_UNSIGNED, 0)
    deadline: int = field(_UNSIGNED, 0)
    period: int = field(_UNSIGNED, 0)


class Affinity(Shape):
    """Processors for an exec, before and after it is in the container's cgroup."""

    initial: str = field(text, "")
    final: str = field(text, "")


class Process(Shape):
    """The program to run and its attributes."""

    args: Sequence[str] = field(listed(text, least=1))
    cwd: str = field(text, "/")
    env: Sequence[str] = field(_TEXTS, ())
    terminal: bool = field(boolean, False)
    console_size: Box | None = field(optional(shaped(Box)), None)
    user: User = field(shaped(User), User())
    capabilities: Capabilities | None = field(optional(shaped(Capabilities)), None)
    rlimits: Sequence[Rlimit] = field(listed(shaped(Rlimit)), ())
    no_new_privileges: bool = field(boolean, False)
    oom_score_adj: int | None = field(optional(integer(-1000, 1000)), None)
    io_priority: IoPriority | None = field(optional(shaped(IoPriority)), None)
    apparmor_profile: str = field(text, "")
    selinux_label: str = field(text, "")
    scheduler: Scheduler | None = field(optional(shaped(Scheduler)), None)
    exec_cpu_affinity: Affinity | None = field(optional(shaped(Affinity)), None, wire="execCPUAffinity")


class Root(Shape):
    """The root file system; its `path` is given as mounts beside the config."""

    path: str = field(text, "rootfs")
    readonly: bool = field(boolean, False)


class IdMapping(Shape):
    """`size` ids of a user namespace, and which they are outside."""

    container_id: int = field(_ID, wire="containerID")
    host_id: int = field(_ID, wire="hostID")
    size: int = field(integer(1, (1 << 32) - 1))


class MountPoint(Shape):
    """One mount of the container."""

    destination: str = field(text)
    type: str = field(text, "bind")
    source: str = field(text, "")
    options: Sequence[str] = field(_TEXTS, ())
    uid_mappings: Sequence[IdMapping] = field(listed(shaped(IdMapping)), ())
    gid_mappings: Sequence[IdMapping] = field(listed(shaped(IdMapping)), ())


class Namespace(Shape):
    """A namespace to make, or with `path` to join."""

    type: str = field(text)
    path: str = field(text, "")


class Device(Shape):
    """A device node to make."""

    path: str = field(text)
    type: str = field(text)
    major: int = field(_UNSIGNED, 0)
    minor: int = field(_UNSIGNED, 0)
    file_mode: int | None = field(optional(integer(0, 0o7777 | 0o170000)), None)
    uid: int = field(_ID, 0)
    gid: int = field(_ID, 0)


class TimeOffset(Shape):
    """How far a clock of a new time namespace is ahead."""

    secs: int = field(integer(-(1 << 62), 1 << 62), 0)
    nanosecs: int = field(integer(0, 999_999_999), 0)


class Linux(Shape):
    """Linux-specific configuration."""

    namespaces: Sequence[Namespace] = field(listed(shaped(Namespace)), ())
    devices: Sequence[Device] = field(listed(shaped(Device)), ())
    cgroups_path: str = field(text, "")
    resources: Mapping[str, Any] | None = field(optional(mapped(anything)), None)
    sysctl: Mapping[str, str] = field(mapped(text), {})
    seccomp: Mapping[str, Any] | None = field(optional(mapped(anything)), None)
    masked_paths: Sequence[str] | None = field(optional(_TEXTS), None)
    readonly_paths: Sequence[str] | None = field(optional(_TEXTS), None)
    rootfs_propagation: str = field(text, "")
    mount_label: str = field(text, "")
    personality: Mapping[str, Any] | None = field(optional(mapped(anything)), None)
    uid_mappings: Sequence[IdMapping] | None = field(optional(listed(shaped(IdMapping))), None)
    gid_mappings: Sequence[IdMapping] | None = field(optional(listed(shaped(IdMapping))), None)
    time_offsets: Mapping[str, TimeOffset] = field(mapped(shaped(TimeOffset)), {})
    intel_rdt: Any = field(anything, None)


class HookProgram(Shape):
    """One hook."""

    path: str = field(text)
    args: Sequence[str] = field(_TEXTS, ())
    env: Sequence[str] = field(_TEXTS, ())
    timeout: int | None = field(optional(integer(1, 1 << 31)), None)


class Hooks(Shape):
    """Programs to run at points of the lifecycle; `prestart` is the old name of most of `createRuntime`."""

    prestart: Sequence[HookProgram] = field(listed(shaped(HookProgram)), ())
    create_runtime: Sequence[HookProgram] = field(listed(shaped(HookProgram)), ())
    create_container: Sequence[HookProgram] = field(listed(shaped(HookProgram)), ())
    start_container: Sequence[HookProgram] = field(listed(shaped(HookProgram)), ())
    poststart: Sequence[HookProgram] = field(listed(shaped(HookProgram)), ())
    poststop: Sequence[HookProgram] = field(listed(shaped(HookProgram)), ())


class Spec(Shape):
    """A whole config.json."""

    process: Process = field(shaped(Process))
    linux: Linux = field(shaped(Linux))
    root: Root = field(shaped(Root), Root())
    hostname: str = field(text, "")
    domainname: str = field(text, "")
    mounts: Sequence[MountPoint] = field(listed(shaped(MountPoint)), ())
    hooks: Hooks | None = field(optional(shaped(Hooks)), None)
    annotations: Mapping[str, str] = field(mapped(text), {})
    oci_version: str = field(text, "1.0.2")


class RootMount(Shape):
    """One of the mounts that make the root file system, as a snapshotter emits them.

    Option `idmap`: its ids on disk are those inside the container's user namespace.
    """

    type: str = field(text)
    source: str = field(text)
    options: Sequence[str] = field(_TEXTS, ())


_ROOT = ("type", "source", "options")


def parse_spec(config: Mapping[str, Any]) -> Spec:
    """Check a decoded config.json. Raises Invalid, with the place in the document."""
    return _parse(config, Spec, "config.json")


def parse_process(process: Mapping[str, Any]) -> Process:
    """Check a decoded `process` object. Raises Invalid."""
    return _parse(process, Process, "process")


def parse_root_mounts(mounts: Sequence[Any]) -> list[RootMount]:
    """Check the mounts of a root file system, given as mappings or as objects of that shape. Raises Invalid."""
    return [
        _parse(
            mount if type(mount) is dict else {name: getattr(mount, name, None) for name in _ROOT}, RootMount, "rootfs"
        )
        for mount in mounts
    ]


def _parse(value: Any, shape: type[S], what: str) -> S:
    try:
        return convert(value, shape)
    except Mismatch as error:
        raise Invalid(f"{what} is not valid: {error}", code="invalid-config", subject=what) from None
