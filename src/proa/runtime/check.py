"""What a config may ask for: the rules of `compile_plan` that are not types, each ending in Invalid or Unsupported."""

from __future__ import annotations

import posixpath
import resource

from proa.errors import Invalid, Unsupported
from proa.linux.sched import IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE, IOPRIO_CLASS_RT, SCHEDULING_FLAGS, SCHEDULING_POLICIES
from proa.linux.tuples import NamedTuple
from proa.runtime import userns
from proa.runtime.defaults import CAPABILITY_NUMBERS, DEFAULT_PATH
from proa.runtime.hooks import Hook
from proa.runtime.mount_options import PROPAGATION
from proa.runtime.shapes import ALPHANUMERIC
from proa.runtime.spec import (
    Capabilities,
    HookProgram,
    Hooks,
    IdMapping,
    IoPriority,
    Linux,
    MountPoint,
    Namespace,
    Process,
    Rlimit,
    Scheduler,
    Spec,
    TimeOffset,
)
from proa.runtime.steps.attributes import SetIoPriority, SetScheduler, sysctl_path
from proa.runtime.steps.credentials import FilterSystemCalls
from proa.runtime.steps.isolation import NAMESPACE_FLAGS
from proa.runtime.steps.mounts import PROC_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

_NAME = ALPHANUMERIC | frozenset("_.-")  # of file systems and hosts, up to 64 characters

_IPC_SYSCTLS = frozenset(
    {
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    }
)
_SYSCTL_NAME = ALPHANUMERIC | frozenset("_./:-")
_SYSCTL_VALUE = frozenset("\t" + "".join([chr(code) for code in range(0x20, 0x7F)]))
_PERSONALITIES = {"LINUX": 0, "LINUX32": 0x0008}
_IO_CLASSES = {
    "IOPRIO_CLASS_RT": IOPRIO_CLASS_RT,
    "IOPRIO_CLASS_BE": IOPRIO_CLASS_BE,
    "IOPRIO_CLASS_IDLE": IOPRIO_CLASS_IDLE,
}


class CapabilitySets(NamedTuple):
    """Capability sets as masks."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def check_text(text: str, what: str) -> None:
    """Refuse what C would cut off. Raises Invalid."""
    if "\0" in text:
        raise Invalid(f"{what} contains a NUL character", code="invalid-config", subject=what)


def check_path(path: str, what: str) -> None:
    """An absolute path without `..`. Raises Invalid."""
    check_text(path, what)
    if not path.startswith("/") or ".." in path.split("/"):
        raise Invalid(f"{what} path `{path}` must be absolute and without ..", code="invalid-path", subject=path)


def hooks(programs: Sequence[HookProgram]) -> list[Hook]:
    """Hooks to run. Raises Invalid."""
    for program in programs:
        check_path(program.path, "hook")
        for text in (*program.args, *program.env):
            check_text(text, "a hook's argument or variable")
    return [Hook(p.path, tuple(p.args), tuple(p.env), p.timeout or 0) for p in programs]


def check_spec(spec: Spec, *, created_first: bool) -> None:
    """Refuse features proa does not have, and combinations that make no sense.

    created_first: whether the container is created and then started, which hooks need.
    """
    linux = spec.linux
    missing = {
        "hooks": bool(spec.hooks and spec.hooks != Hooks()) and not created_first,
        "linux.intelRdt": bool(linux.intel_rdt),
        "linux.mountLabel": bool(linux.mount_label),
    }
    for name, asked in missing.items():
        if asked:
            raise Unsupported(f"config.json asks for {name}, which proa does not support", code="unsupported-config")
    if linux.rootfs_propagation and linux.rootfs_propagation not in PROPAGATION:
        text = f"unknown root propagation `{linux.rootfs_propagation}`"
        raise Invalid(text, code="invalid-config", subject=linux.rootfs_propagation)
    if any(len(name) > 64 or not _NAME.issuperset(name) for name in (spec.hostname, spec.domainname)):
        raise Invalid("host and domain name may have letters, digits, `-`, `_`, `.`, up to 64", code="invalid-hostname")
    kinds = {namespace.type for namespace in linux.namespaces}
    if "mount" not in kinds:
        raise Invalid("a container needs a mount namespace of its own", code="invalid-config")
    if (spec.hostname or spec.domainname) and "uts" not in kinds:
        raise Invalid("a host name needs a uts namespace of its own", code="invalid-config")
    for path in (*(linux.masked_paths or ()), *(linux.readonly_paths or ())):
        check_path(path, "masked or read-only")
    check_process(spec.process)


def mappings(uids: Sequence[IdMapping] | None, gids: Sequence[IdMapping] | None) -> userns.Mappings:
    """Checked maps of a user namespace. Raises Invalid."""

    def checked(given: Sequence[IdMapping] | None, what: str) -> tuple[userns.Mapping, ...]:
        found = [userns.Mapping(one.container_id, one.host_id, one.size) for one in given or ()]
        return userns.check_mappings(found, what)

    return userns.Mappings(checked(uids, "uid"), checked(gids, "gid"))


def user_mappings(linux: Linux, made: AbstractSet[str]) -> userns.Mappings | None:
    """The maps of the user namespace to make, None without one. Raises Invalid when maps and namespace disagree."""
    given = bool(linux.uid_mappings or linux.gid_mappings)
    if "user" in made:
        return mappings(linux.uid_mappings, linux.gid_mappings)
    if given:
        text = "uid and gid mappings need a new user namespace"
        raise Invalid(text, code="invalid-config", hint='add {"type": "user"} to linux.namespaces')
    return None


def check_process(process: Process) -> None:
    """Refuse process attributes that proa lacks, and text that no process can have."""
    for name, asked in (
        ("an AppArmor profile", process.apparmor_profile),
        ("an SELinux label", process.selinux_label),
    ):
        if asked:
            raise Unsupported(f"the process asks for {name}, which proa cannot set", code="unsupported-config")
    if not process.args[0]:
        raise Invalid("the command is empty", code="invalid-config")
    for argument in (*process.args, *process.env, process.user.username or ""):
        check_text(argument, "an argument, variable or user")
    check_text(process.cwd, "working directory")
    if not process.cwd.startswith("/"):
        raise Invalid(f"working directory `{process.cwd}` is not absolute", code="invalid-path", subject=process.cwd)


def sort_namespaces(namespaces: Sequence[Namespace]) -> tuple[frozenset[str], dict[str, str]]:
    """Kinds to make, and paths to join by kind. Raises Invalid, or Unsupported for what cannot be joined."""
    made: set[str] = set()
    joined: dict[str, str] = {}
    for namespace in namespaces:
        kind = namespace.type
        if kind not in NAMESPACE_FLAGS or kind in made or kind in joined:
            raise Invalid(f"unknown or repeated namespace `{kind}`", code="invalid-config", subject=kind)
        if namespace.path:
            check_path(namespace.path, f"{kind} namespace")
            if kind == "mount":
                raise Unsupported(f"joining a {kind} namespace is not supported", code="unsupported-config")
            joined[kind] = namespace.path
        else:
            made.add(kind)
    return frozenset(made), joined


def check_mount(point: MountPoint, *, bind: bool) -> None:
    """Where may what be mounted. Raises Invalid or Unsupported."""
    destination = point.destination
    check_path(destination, "mount destination")
    check_text(point.source, "mount source")
    if posixpath.normpath(destination) != destination or destination == "/":
        raise Invalid(
            f"mount destination `{destination}` is not a plain path", code="invalid-path", subject=destination
        )
    if bind:
        if not point.source.startswith("/"):
            text = f"bind source `{point.source}` must be an absolute path"
            raise Invalid(text, code="invalid-path", subject=point.source)
        # On /proc itself only the whole of a procfs, which is checked once it is open (`Bind`).
        unsafe = point.source != "/proc" if destination == "/proc" else destination.startswith("/proc/")
        if unsafe and destination not in PROC_FILES:
            raise Invalid(f"nothing may be mounted on {destination}", code="unsafe-destination", subject=destination)
        return
    if not 0 < len(point.type) <= 64 or not _NAME.issuperset(point.type):
        raise Invalid(f"`{point.type}` is not a file system", code="mount-type", subject=destination)
    if (point.type == "proc") != (destination == "/proc") or destination.startswith("/proc/"):
        raise Invalid(
            f"{point.type} may not be mounted on {destination}", code="unsafe-destination", subject=destination
        )


def check_sysctls(values: Mapping[str, str], own: AbstractSet[str]) -> dict[str, str]:
    """Only parameters of the container's own namespaces (CVE-2022-0532). Raises Invalid."""
    for name, value in values.items():
        path = sysctl_path(name)
        parts = path.split("/")
        plain = _SYSCTL_NAME.issuperset(name) and _SYSCTL_VALUE.issuperset(value)
        if not plain or not all(parts) or ".." in parts:
            raise Invalid(f"sysctl {name!r} is malformed", code="invalid-sysctl", subject=name)
        if path.startswith("net/"):
            needed = "network"
        elif path in _IPC_SYSCTLS or path.startswith("fs/mqueue/"):
            needed = "ipc"
        elif path == "kernel/domainname":
            needed = "uts"
        else:
            raise Invalid(f"sysctl `{name}` is not one of a container's own", code="sysctl-not-allowed", subject=name)
        if needed not in own:
            text = f"sysctl `{name}` needs a {needed} namespace of the container's own"
            raise Invalid(text, code="sysctl-not-allowed", subject=name)
    return dict(values)


def limits(rlimits: Sequence[Rlimit]) -> list[tuple[str, int, int, int]]:
    """(name, number, soft, hard) of each limit. Raises Invalid."""
    found: dict[str, tuple[str, int, int, int]] = {}
    for limit in rlimits:
        number = getattr(resource, limit.type, None)
        if not limit.type.startswith("RLIMIT_") or not isinstance(number, int) or limit.type in found:
            raise Invalid(f"unknown or repeated limit `{limit.type}`", code="invalid-config", subject=limit.type)
        soft, hard = (-1 if value >= (1 << 63) - 1 else value for value in (limit.soft, limit.hard))
        if hard >= 0 and (soft < 0 or soft > hard):
            raise Invalid(f"soft {limit.type} is above the hard limit", code="invalid-config", subject=limit.type)
        found[limit.type] = (limit.type, number, soft, hard)
    return list(found.values())


def scheduler(wanted: Scheduler) -> SetScheduler:
    """The step for a scheduling policy. Raises Invalid."""
    if wanted.policy not in SCHEDULING_POLICIES:
        raise Invalid(f"unknown scheduling policy `{wanted.policy}`", code="invalid-config", subject=wanted.policy)
    flags = 0
    for flag in wanted.flags:
        if flag not in SCHEDULING_FLAGS:
            raise Invalid(f"unknown scheduling flag `{flag}`", code="invalid-config", subject=flag)
        flags |= SCHEDULING_FLAGS[flag]
    return SetScheduler(wanted.policy, flags, wanted)


def processors(text: str) -> frozenset[int]:
    """Processor numbers of a list such as `0-2,4`. Raises Invalid."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        if not all(number.isascii() and number.isdecimal() and len(number) < 6 for number in numbers):
            raise Invalid(f"`{text}` is not a list of processors", code="invalid-config", subject=text)
        found.update(range(int(numbers[0]), int(numbers[-1]) + 1))
    return frozenset(found)


def time_offsets(wanted: Mapping[str, TimeOffset], made: AbstractSet[str]) -> bytes:
    """What /proc/PID/timens_offsets takes (time_namespaces(7)); empty without. Raises Invalid."""
    if wanted and "time" not in made:
        raise Invalid("time offsets need a new time namespace", code="invalid-config")
    for clock in wanted:
        if clock not in ("monotonic", "boottime"):
            raise Invalid(f"clock `{clock}` has no offset", code="invalid-config", subject=clock)
    return "".join(f"{clock} {offset.secs} {offset.nanosecs}\n" for clock, offset in wanted.items()).encode()


def io_priority(wanted: IoPriority) -> SetIoPriority:
    """The step for an I/O priority. Raises Invalid."""
    if wanted.class_ not in _IO_CLASSES:
        raise Invalid(f"unknown I/O class `{wanted.class_}`", code="invalid-config")
    return SetIoPriority(_IO_CLASSES[wanted.class_], wanted.priority)


def persona(wanted: Mapping[str, Any] | None) -> int | None:
    """The personality(2) number, or None for the usual one. Raises Unsupported."""
    if not wanted:
        return None
    domain = wanted.get("domain")
    if domain not in _PERSONALITIES or wanted.get("flags"):
        raise Unsupported(f"personality `{domain}` is not supported", code="unsupported-config")
    return _PERSONALITIES[domain]


def capability_sets(wanted: Capabilities | None) -> CapabilitySets:
    """Masks of the five sets; none at all when the config has no capabilities. Raises Invalid."""

    def mask(names: Sequence[str]) -> int:
        bits = 0
        for name in names:
            number = CAPABILITY_NUMBERS.get(name)
            if number is None:
                raise Invalid(f"unknown capability `{name}`", code="unknown-capability", subject=name)
            bits |= 1 << number
        return bits

    if wanted is None:
        return CapabilitySets(0, 0, 0, 0, 0)
    sets = CapabilitySets(
        mask(wanted.bounding),
        mask(wanted.effective),
        mask(wanted.permitted),
        mask(wanted.inheritable),
        mask(wanted.ambient),
    )
    if sets.effective & ~sets.permitted or sets.ambient & ~(sets.permitted & sets.inheritable):
        text = "effective capabilities must be permitted, ambient ones permitted and inheritable"
        raise Invalid(text, code="invalid-config")
    return sets


def seccomp_step(spec: Spec, bounding: int) -> FilterSystemCalls | None:
    """The step of the config's filter, or None when it asks for none. Raises as `seccomp.compile_filter` does."""
    asked = spec.annotations.get("proa.seccomp", "")
    if spec.linux.seccomp is None and asked in ("", "unconfined"):
        return None
    from proa.runtime import seccomp  # only now: `proa-runtime` may do without

    if spec.linux.seccomp is not None:
        compiled = seccomp.compile_filter(spec.linux.seccomp)
    elif asked == "default":
        compiled = seccomp.default_filter(bounding)
    else:
        raise Invalid(f"unknown seccomp profile `{asked}`", code="invalid-config")
    return FilterSystemCalls(compiled.program, compiled.flags)


def environment(entries: Sequence[str]) -> list[tuple[str, str]]:
    """Name and value of each variable; entries that are no assignment are dropped, never filled from ours."""
    variables: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if name and separator:
            variables[name] = value
    variables.setdefault("PATH", DEFAULT_PATH)
    return list(variables.items())
