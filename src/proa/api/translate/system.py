"""The engine's facts: version, info, disk usage."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from proa._version import __version__
from proa.api.messages import Version
from proa.api.routes import API_VERSION, MIN_API_VERSION, dotted
from proa.api.translate import containers as containers_shape
from proa.api.translate import images as images_shape
from proa.api.translate import networks as networks_shape
from proa.engine.log_options import DRIVERS

if TYPE_CHECKING:
    from proa.engine import Engine

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


def version() -> dict[str, Any]:
    """`GET /version`."""
    machine = os.uname()
    architecture = _ARCHITECTURES.get(machine.machine, machine.machine)
    details = {
        "ApiVersion": dotted(API_VERSION),
        "Arch": architecture,
        "Experimental": "false",
        "KernelVersion": machine.release,
        "MinAPIVersion": dotted(MIN_API_VERSION),
        "Os": "linux",
        "PythonVersion": platform.python_version(),
    }
    return {
        "Platform": {"Name": "proa"},
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
        "Version": __version__,
        "ApiVersion": dotted(API_VERSION),
        "MinAPIVersion": dotted(MIN_API_VERSION),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": machine.release,
        "BuildTime": "",
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
    }


def info(facts: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """`GET /info`: the engine's facts under Docker's names, with a value for each that clients print."""
    out: dict[str, Any] = {
        "ID": "",
        "Containers": 0,
        "ContainersRunning": 0,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 0,
        "Driver": "overlay",
        "DriverStatus": [],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": sorted(DRIVERS),
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "Debug": False,
        "OomKillDisable": False,
        "CgroupDriver": "cgroupfs",
        "OSType": "linux",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}},
            "Mirrors": [],
        },
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {"proa": {"path": "proa"}},
        "DefaultRuntime": "proa",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,  # containers outlive the engine, always
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Warnings": None,
    }
    if version < (1, 42):
        out |= {"KernelMemory": False, "KernelMemoryTCP": False}
    out |= facts
    if version < (1, 44):
        out["Runtimes"] = {name: {"path": runtime["path"]} for name, runtime in out["Runtimes"].items()}
    return out


def usage(engine: Engine, wanted: AbstractSet[str], version: Version, now: float) -> dict[str, Any]:
    """`GET /system/df`; `wanted` limits it to some of container, image, volume, build-cache."""
    out: dict[str, Any] = {"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}
    from proa.engine.usage import shared_sizes

    facts = engine.system.usage()
    if not wanted or "image" in wanted:
        records = engine.images.list()
        out["Images"] = [
            images_shape.summary(image, version, engine.images.short_names, shared)
            for image, shared in zip(records, shared_sizes(engine.storage, records).values(), strict=True)
        ]
        out["LayersSize"] = facts.images.size
        for entry in out["Images"]:
            entry["Containers"] = max(entry["Containers"], 0)
    if not wanted or "container" in wanted:
        containers = engine.containers
        out["Containers"] = [
            containers_shape.summary(c, now, containers.sizes(c.id)) for c in containers.list(all=True)
        ]
    if not wanted or "volume" in wanted:
        sizes = facts.by_volume
        out["Volumes"] = [
            networks_shape.volume(volume)
            | {"UsageData": {"Size": sizes.get(volume.name, -1), "RefCount": len(engine.volumes.users(volume.name))}}
            for volume in engine.volumes.list()
        ]
    if version < (1, 42):
        out["BuilderSize"] = 0
    return out
