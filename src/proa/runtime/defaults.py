"""What a container gets unless told otherwise, as plain data for whoever writes a config.json.

The values are Docker's (moby daemon/pkg/oci, 2026). Everything is JSON-able; functions return fresh objects, which a
caller may change. This module imports nothing heavy.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Mount options of our own: what of the source to mount, and whether to give it to the container's user.
SUBPATH = "proa.subpath"
CHOWN = "proa.chown"

CAPABILITIES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

# linux/capability.h, in number order.
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
ALL_CAPABILITIES: tuple[str, ...] = tuple("CAP_" + name for name in _NAMES.split())
CAPABILITY_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(ALL_CAPABILITIES)}

MASKED_PATHS: tuple[str, ...] = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READONLY_PATHS: tuple[str, ...] = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# Written when the network namespace is the container's own; skipped where the kernel lacks the file.
NETWORK_SYSCTLS: dict[str, str] = {
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.ip_unprivileged_port_start": "0",
}

SHM_SIZE_BYTES = 64 << 20
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# (path, major, minor) of the character devices every container has, all of mode 0666.
DEVICES: tuple[tuple[str, int, int], ...] = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)


def masked_paths() -> list[str]:
    """MASKED_PATHS and the thermal_throttle directory of every processor that has one."""
    cpus = "/sys/devices/system/cpu"
    try:
        names = sorted(name for name in os.listdir(cpus) if name[:3] == "cpu" and name[3:].isdecimal())
    except OSError:
        names = []
    throttles = [f"{cpus}/{name}/thermal_throttle" for name in names]
    return [*MASKED_PATHS, *(path for path in throttles if os.path.isdir(path))]


def mounts(shm_size_bytes: int = SHM_SIZE_BYTES, *, cgroup_writable: bool = False) -> list[dict[str, Any]]:
    """The mounts of an unprivileged container, in order, as OCI config `mounts`."""
    secure = ["nosuid", "noexec", "nodev"]
    pty = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    rows = (
        ("/proc", "proc", "proc", secure),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", pty),
        ("/sys", "sysfs", "sysfs", [*secure, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*secure, "rw" if cgroup_writable else "ro"]),
        ("/dev/mqueue", "mqueue", "mqueue", secure),
        ("/dev/shm", "tmpfs", "shm", [*secure, "mode=1777", f"size={shm_size_bytes}"]),  # noqa: S108
    )
    return [
        {"destination": destination, "type": kind, "source": source, "options": list(options)}
        for destination, kind, source, options in rows
    ]


def device_rules() -> list[dict[str, Any]]:
    """Device cgroup rules as OCI `linux.resources.devices`: deny all, then what DEVICES and ptys need.

    Tighter than runc, which lets a container make a node of any device though it cannot open it.
    """

    def allow(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
        rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        return rule

    return [
        {"allow": False, "access": "rwm"},
        *(allow("c", major, minor, "rwm") for _path, major, minor in DEVICES),
        allow("c", 5, 1, "rwm"),
        allow("c", 5, 2, "rwm"),
        allow("c", 136, None, "rwm"),
        # Users of /dev/net/tun broke when runc removed it; without the node and NET_ADMIN it is of no use.
        allow("c", 10, 200, "rwm"),
    ]


def namespaces(*, network: bool = True) -> list[dict[str, str]]:
    """The namespaces of a container, as OCI `linux.namespaces`; without `network` it shares the host's."""
    kinds = ["mount", "pid", "uts", "ipc", "cgroup", *(["network"] if network else [])]
    return [{"type": kind} for kind in kinds]


def capabilities(names: tuple[str, ...] | list[str] = CAPABILITIES) -> dict[str, list[str]]:
    """OCI `process.capabilities` with `names` in three sets; inheritable and ambient stay empty (CVE-2022-24769)."""
    return {"bounding": list(names), "effective": list(names), "permitted": list(names)}
