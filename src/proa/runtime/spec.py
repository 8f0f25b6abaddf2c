"""The parts of an OCI config.json that the runtime obeys, as checked types (runtime-spec config.md, config-linux.md).

Unknown fields are ignored, as the specification asks; known ones that proa does not obey are declared here so that
`plan` can refuse them. Extensions of proa:

- `process.user.username` is resolved inside the container's root (`users.resolve_user`), `additionalGroups` too;
- annotation `proa.init: "true"` runs the process below a reaper as process 1;
- annotation `proa.seccomp: "default"` stands for `seccomp.default_profile` of the process's capabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from proa.errors import Invalid

T = TypeVar("T")
Id = Annotated[int, Meta(ge=0, le=(1 << 32) - 2)]
Unsigned = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class User(Struct, frozen=True, rename="camel"):
    """Who the process runs as."""

    uid: Id = 0
    gid: Id = 0
    additional_gids: list[Id] = []
    umask: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    username: str | None = None
    additional_groups: list[str] = []


class Capabilities(Struct, frozen=True, rename="camel"):
    """Capability names by set."""

    bounding: list[str] = []
    effective: list[str] = []
    permitted: list[str] = []
    inheritable: list[str] = []
    ambient: list[str] = []


class Rlimit(Struct, frozen=True, rename="camel"):
    """One resource limit."""

    type: str
    hard: Annotated[int, Meta(ge=-1)]
    soft: Annotated[int, Meta(ge=-1)]


class Box(Struct, frozen=True, rename="camel"):
    """Console size in characters."""

    height: Annotated[int, Meta(ge=0, le=65535)] = 0
    width: Annotated[int, Meta(ge=0, le=65535)] = 0


class IoPriority(Struct, frozen=True, rename="camel"):
    """I/O scheduling class and priority."""

    class_: str = msgspec.field(name="class", default="")
    priority: Annotated[int, Meta(ge=0, le=7)] = 0


class Scheduler(Struct, frozen=True, rename="camel"):
    """Scheduling policy; times in nanoseconds."""

    policy: str
    nice: Annotated[int, Meta(ge=-20, le=19)] = 0
    priority: Annotated[int, Meta(ge=0, le=99)] = 0
    flags: list[str] = []
    runtime: Unsigned = 0
    deadline: Unsigned = 0
    period: Unsigned = 0


class Affinity(Struct, frozen=True, rename="camel"):
    """Processors for an exec, before and after it is in the container's cgroup."""

    initial: str = ""
    final: str = ""


class Process(Struct, frozen=True, rename="camel"):
    """The program to run and its attributes."""

    args: Annotated[list[str], Meta(min_length=1)]
    cwd: str = "/"
    env: list[str] = []
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = []
    no_new_privileges: bool = False
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    io_priority: IoPriority | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""
    scheduler: Scheduler | None = None
    exec_cpu_affinity: Affinity | None = msgspec.field(name="execCPUAffinity", default=None)


class Root(Struct, frozen=True, rename="camel"):
    """The root file system; its `path` is given as mounts beside the config."""

    path: str = "rootfs"
    readonly: bool = False


class IdMapping(Struct, frozen=True):
    """`size` ids of a user namespace, and which they are outside."""

    container_id: Id = msgspec.field(name="containerID")
    host_id: Id = msgspec.field(name="hostID")
    size: Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]


class MountPoint(Struct, frozen=True, rename="camel"):
    """One mount of the container."""

    destination: str
    type: str = "bind"
    source: str = ""
    options: list[str] = []
    uid_mappings: list[IdMapping] = []
    gid_mappings: list[IdMapping] = []


class Namespace(Struct, frozen=True, rename="camel"):
    """A namespace to make, or with `path` to join."""

    type: str
    path: str = ""


class Device(Struct, frozen=True, rename="camel"):
    """A device node to make."""

    path: str
    type: str
    major: Unsigned = 0
    minor: Unsigned = 0
    file_mode: Annotated[int, Meta(ge=0, le=0o7777 | 0o170000)] | None = None
    uid: Id = 0
    gid: Id = 0


class TimeOffset(Struct, frozen=True, rename="camel"):
    """How far a clock of a new time namespace is ahead."""

    secs: Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)] = 0
    nanosecs: Annotated[int, Meta(ge=0, le=999_999_999)] = 0


class Linux(Struct, frozen=True, rename="camel"):
    """Linux-specific configuration."""

    namespaces: list[Namespace] = []
    devices: list[Device] = []
    cgroups_path: str = ""
    resources: dict[str, Any] | None = None
    sysctl: dict[str, str] = {}
    seccomp: dict[str, Any] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    rootfs_propagation: str = ""
    mount_label: str = ""
    personality: dict[str, Any] | None = None
    uid_mappings: list[IdMapping] | None = None
    gid_mappings: list[IdMapping] | None = None
    time_offsets: dict[str, TimeOffset] = {}
    intel_rdt: Any = None


class HookProgram(Struct, frozen=True, rename="camel"):
    """One hook."""

    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: Annotated[int, Meta(ge=1, le=1 << 31)] | None = None


class Hooks(Struct, frozen=True, rename="camel"):
    """Programs to run at points of the lifecycle; `prestart` is the old name of most of `createRuntime`."""

    prestart: list[HookProgram] = []
    create_runtime: list[HookProgram] = []
    create_container: list[HookProgram] = []
    start_container: list[HookProgram] = []
    poststart: list[HookProgram] = []
    poststop: list[HookProgram] = []


class Spec(Struct, frozen=True, rename="camel"):
    """A whole config.json."""

    process: Process
    linux: Linux
    root: Root = Root()
    hostname: str = ""
    domainname: str = ""
    mounts: list[MountPoint] = []
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    oci_version: str = "1.0.2"


class RootMount(Struct, frozen=True, rename="camel"):
    """One of the mounts that make the root file system, as a snapshotter emits them.

    Option `idmap`: its ids on disk are those inside the container's user namespace.
    """

    type: str
    source: str
    options: list[str] = []


def parse_spec(config: Mapping[str, Any]) -> Spec:
    """Check a decoded config.json. Raises Invalid, with the place in the document."""
    return _convert(config, Spec, "config.json")


def parse_process(process: Mapping[str, Any]) -> Process:
    """Check a decoded `process` object. Raises Invalid."""
    return _convert(process, Process, "process")


def parse_root_mounts(mounts: Any) -> list[RootMount]:
    """Check the mounts of a root file system, given as mappings or as objects of that shape. Raises Invalid."""
    return _convert(mounts, list[RootMount], "rootfs")


def _convert(value: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(value, kind, from_attributes=True)
    except msgspec.ValidationError as error:
        raise Invalid(f"{what} is not valid: {error}", code="invalid-config", subject=what) from None
