"""Facts about the engine and its host, and what it keeps on disk."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from proa._version import __version__
from proa.engine.clock import now
from proa.engine.runtimes import available
from proa.engine.usage import DiskUsage, measure

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class System:
    """Facts for `info` and `system df`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def info(self) -> dict[str, Any]:
        """Facts under Docker's names."""
        engine = self._engine
        states = [entry.record.state.status for entry in engine.catalog]
        machine = os.uname()
        return {
            "ID": engine.id,
            "Name": socket.gethostname(),
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(engine.images.list()),
            "Driver": "overlay",
            "DriverStatus": [["Backing Filesystem", _filesystem(engine.root)], ["Nothing mounted on the host", "true"]],
            "DockerRootDir": str(engine.root),
            "ServerVersion": __version__,
            "KernelVersion": machine.release,
            "OperatingSystem": _os_release("PRETTY_NAME") or machine.sysname,
            "OSVersion": _os_release("VERSION_ID"),
            "Architecture": machine.machine,
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "CgroupVersion": "2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1",
            "SystemTime": now(),
            "LoggingDriver": engine.config.log_driver,
            "Runtimes": _runtimes(),
            **engine.remote_images.facts(),
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": 0,
            "NEventsListener": 0,
            "SecurityOptions": [
                "name=seccomp,profile=builtin",
                *(["name=rootless"] if engine.abilities.rootless else []),
                *(["name=userns"] if engine.config.userns_remap else []),
            ],
            "Warnings": [
                *engine.abilities.reasons,
                *engine.networks.warnings(),
                *engine.storage.damaged,
                *engine.volumes.damaged(),
            ]
            or None,
        }

    def usage(self) -> DiskUsage:
        """What the data root occupies."""
        return measure(self._engine)


def _runtimes() -> dict[str, dict[str, Any]]:
    """Those of the machine; of ours, what it can do: clients decide by it which mounts they may ask for."""
    from proa.runtime.verbs.features import features

    out: dict[str, dict[str, Any]] = {name: {"path": path} for name, path in available().items()}
    out["proa"]["status"] = {"org.opencontainers.runtime-spec.features": msgspec.json.encode(features()).decode()}
    return out


def _os_release(key: str) -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name == key:
                return value.strip().strip('"')
    return ""


def _filesystem(path: Path) -> str:
    """The type of the file system `path` is on, from mountinfo (proc(5))."""
    best, kind = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            fields, _, rest = line.partition(" - ")
            point = fields.split()[4]
            if (str(path) + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, kind = point, rest.split()[0]
    return kind
