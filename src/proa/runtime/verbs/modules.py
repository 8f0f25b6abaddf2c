"""Which modules the verbs need: what `proa.bundle` puts into one file.

Each after those it imports, as far as they are not a package's own; a test holds the lists complete. Verbs whose
process becomes one of the container begin with little, and go on in a sealed copy of the interpreter, which is told
`--oci-runtime-sealed`.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "MODULES"]


def _in(package: str, names: str) -> tuple[str, ...]:
    return tuple([f"{package}.{name}" for name in names.split()])


_ALWAYS = ("__future__", "proa", "proa.runtime", "proa.runtime.verbs")
_FIRST = (*_ALWAYS, "proa.errors", "proa.runtime.verbs.options")
_SHORT = (*_FIRST, *_in("proa.runtime.verbs", "documents records"))
_SEALING = (*_ALWAYS, "proa.linux", "proa.linux.memory_files")
_SEALED = (
    *_SEALING,
    *("proa.errors", "proa.runtime.verbs.options", "proa.runtime.cgroups", "proa.runtime.cgroups.cgroup"),
    *("struct", *_in("proa.linux", "_libc process signals tuples sockets mount once sched seccomp")),
    *_in("proa.runtime", "userns channel init_program defaults shapes steps"),
    *("proa.linux.files", *_in("proa.runtime.steps", "step command")),
    *(*_in("proa.runtime", "hooks mount_options spec root users"), *_in("proa.linux", "keyring capability tty")),
    *_in("proa.runtime.steps", "attributes credentials isolation copying mounts"),
    *("proa.runtime.check", *_in("proa.runtime.steps", "devices rootfs images lifecycle masks ownership sharing")),
    *("proa.runtime.plan", "proa.runtime.steps.shifting", *_in("proa.runtime", "preparing launching")),
    *_in("proa.runtime.verbs", "documents log records console hooks preparing create"),
    *_in("proa.runtime.cgroups", "control_files device_rules resources hierarchy making"),
)
COMMANDS = {
    "": _FIRST,
    "state": (*_SHORT, "proa.runtime.verbs.state"),
    "start": (*_SHORT, *_in("proa.runtime.verbs", "log start")),
    "kill": (*_SHORT, "proa.runtime.verbs.kill"),
    "delete": (*_SHORT, "proa.runtime.verbs.delete"),
    "create": _SEALING,
    "run": _SEALING,
    "exec": _SEALING,
    "--oci-runtime-sealed": _SEALED,
}
_LATER = (
    *("proa._version", "proa.runtime.seccomp", *_in("proa.runtime.seccomp", "bpf compiler profile syscalls")),
    *("proa.linux.bpf", *_in("proa.runtime.cgroups", "version1 version2")),
    *_in("proa.runtime.verbs", "exec foreground notify run"),
)
MODULES = tuple(dict.fromkeys([*[name for names in COMMANDS.values() for name in names], *_LATER]))
