"""What a container may have that is made, entered or joined through a scoped socket: nothing that reaches the host.

The rule is a list of what is harmless. Every other member of HostConfig must be as if it had not been given, so that a
member that is new to the engine is refused until somebody thought about it. Checked on the very record that the engine
makes of a request, so that no second reading of it can differ.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proa.api.translate.networks import network_request
from proa.engine.log_options import FILE_OPTIONS
from proa.engine.types import HostConfig
from proa.errors import Denied

#: Members that concern the container alone.
_HARMLESS = frozenset(
    {
        *(
            "container_id_file",
            "restart_policy",
            "auto_remove",
            "console_size",
            "cap_drop",
            "init",
            "tmpfs",
            "shm_size",
        ),
        *("dns", "dns_options", "dns_search", "extra_hosts", "group_add", "readonly_rootfs", "sysctls", "ulimits"),
        *("port_bindings", "publish_all_ports"),
        *("cpu_shares", "memory", "nano_cpus", "blkio_weight", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
        *("memory_reservation", "memory_swap", "memory_swappiness", "pids_limit"),
    }
)
#: Members that name other containers, volumes or networks: here only their form, whose they are elsewhere.
_REFERENCES = frozenset({"network_mode", "volumes_from", "links"})
_OPEN_VALUES: dict[str, tuple[Any, ...]] = {
    "ipc_mode": ("", "none", "private", "shareable"),
    "cgroupns_mode": ("", "private"),
    "volume_driver": ("", "local"),
    "isolation": ("", "default"),
}
_LOG_DRIVERS = ("", "json-file", "local", "cri", "none")
_NETWORK_OPTIONS = frozenset(
    {
        "com.docker.network.driver.mtu",
        "com.docker.network.bridge.enable_icc",
        "com.docker.network.bridge.enable_ip_masquerade",
    }
)


def denied_power(host: HostConfig) -> str:
    """What in it reaches beyond a container, in words; empty when nothing does."""
    for name in host.__struct_fields__:
        value = getattr(host, name)
        if not _is_harmless(host, name, value):
            return _SAYING.get(name, f"HostConfig.{_wire_name(name)}")
    return ""


def _is_harmless(host: HostConfig, name: str, value: Any) -> bool:
    if name in ("masked_paths", "readonly_paths"):
        return value is None  # an empty list unmasks
    if not value or name in _HARMLESS:
        return True
    if name in _OPEN_VALUES:
        return value in _OPEN_VALUES[name] or (name == "ipc_mode" and value.startswith("container:"))
    if name == "network_mode":
        return value != "host" and "/" not in value
    if name in _REFERENCES:
        return True
    if name == "pid_mode":
        return bool(value.startswith("container:"))
    if name == "binds":
        return not any(bind.startswith("/") and ":" in bind for bind in value)
    if name == "mounts":
        return all(_mount_is_harmless(mount) for mount in value)
    if name == "security_opt":
        return all(option.replace(":", "=").partition("=")[0] == "no-new-privileges" for option in value)
    if name == "log_config":
        # The administrator's default may be a driver that sends, whose receiver the options would name.
        return host.log_config.type in _LOG_DRIVERS and FILE_OPTIONS.issuperset(host.log_config.config)
    if name == "oom_score_adj":
        return bool(value > 0)
    return False


def _mount_is_harmless(mount: Any) -> bool:
    driver = (mount.volume_options or {}).get("DriverConfig") or {}
    if not isinstance(driver, dict) or driver.get("Options") or driver.get("Name") not in (None, "", "local"):
        return False
    return mount.type in ("volume", "tmpfs", "image")


_SAYING = {
    "privileged": "--privileged",
    "binds": "directories of the host (-v /path:/path)",
    "mounts": "directories of the host or volume drivers (--mount)",
    "network_mode": "the host's network (--network host)",
    "pid_mode": "the host's processes (--pid host)",
    "ipc_mode": "the host's IPC namespace (--ipc host)",
    "uts_mode": "the host's UTS namespace (--uts host)",
    "userns_mode": "another user namespace (--userns)",
    "cgroupns_mode": "the host's cgroup namespace (--cgroupns host)",
    "cap_add": "added capabilities (--cap-add)",
    "devices": "devices (--device)",
    "security_opt": "weaker confinement (--security-opt)",
    "masked_paths": "unmasked paths of the kernel",
    "readonly_paths": "writable paths of the kernel",
}


def _wire_name(name: str) -> str:
    fields = {field.name: field.encode_name for field in msgspec.structs.fields(HostConfig)}
    return fields[name]


def named_volumes(host: HostConfig) -> list[str]:
    """The volumes a request mounts by name."""
    names = [bind.partition(":")[0] for bind in host.binds or [] if ":" in bind and not bind.startswith("/")]
    return names + [mount.source for mount in host.mounts or [] if mount.type == "volume" and mount.source]


def named_containers(host: HostConfig) -> list[str]:
    """The containers whose namespaces or mounts a request joins, or that it links to."""
    modes = (host.network_mode, host.pid_mode, host.ipc_mode)
    joined = [mode.removeprefix("container:") for mode in modes if mode.startswith("container:")]
    joined += [text.partition(":")[0] for text in host.volumes_from or []]
    return joined + [text.partition(":")[0] for text in host.links or []]


def named_networks(host: HostConfig, networks: Any) -> list[str]:
    """The networks a request joins besides those that every engine has."""
    mode = host.network_mode
    asked = [*networks] + ([] if mode.startswith("container:") else [mode])
    return [name for name in dict.fromkeys(asked) if name not in ("", "default", "bridge", "none")]


def check_network(body: dict[str, Any]) -> None:
    """Refuse a network that reaches into the host's own: another driver, an existing bridge, a parent interface.

    Raises Denied, and Invalid for a malformed request.
    """
    wanted = network_request(body)
    if wanted.driver not in ("", "bridge") or set(wanted.options) - _NETWORK_OPTIONS or wanted.config_only:
        raise Denied("the network's driver or options reach into the host's network", code="scope-denied")
    if wanted.ipam_driver not in ("", "default") or wanted.ipam_options or wanted.ingress:
        raise Denied("the network's address management is not the engine's own", code="scope-denied")


def check_volume(body: dict[str, Any]) -> None:
    """Refuse a volume that is a directory or device of the host's. Raises Denied."""
    if body.get("Driver") not in (None, "", "local") or body.get("DriverOpts"):
        raise Denied("the volume's driver or options reach into the host", code="scope-denied")
