"""Containers: the list, inspect, and the requests that make and configure them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from proa.api.messages import Version, typed
from proa.api.translate.human import status
from proa.engine.clock import parse_rfc3339
from proa.engine.log_options import log_file
from proa.engine.types import (
    Container,
    ContainerConfig,
    CreateRequest,
    EndpointRequest,
    EndpointSettings,
    HostConfig,
    MountPoint,
    State,
)

# Members of Docker's HostConfig that have no place in ours; clients index them without asking.
_HOST_DEFAULTS: dict[str, Any] = {
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}
_EMPTY_LISTS = (
    *("Dns", "DnsOptions", "DnsSearch", "Devices", "Ulimits", "BlkioWeightDevice", "BlkioDeviceReadBps"),
    *("BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
)
_OMIT_EMPTY = {"Mounts", "Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Init"}


def create_request(body: Mapping[str, Any], name: str, platform: str) -> CreateRequest:
    """The body of `POST /containers/create`. Raises Invalid naming the member that is wrong."""
    networking = typed(body.get("NetworkingConfig", {}), dict[str, Any], "NetworkingConfig")
    host = typed(body.get("HostConfig", {}), dict[str, Any], "HostConfig")
    policy = host.get("RestartPolicy")
    if isinstance(policy, Mapping) and not policy.get("Name"):
        host["RestartPolicy"] = {**policy, "Name": "no"}  # clients send an empty name for the default
    networks = typed(networking.get("EndpointsConfig", {}), dict[str, EndpointRequest], "EndpointsConfig")
    if "default" in networks:  # docker run's word for the bridge
        networks.setdefault("bridge", networks.pop("default"))
    return CreateRequest(
        config=typed(_lists(body), ContainerConfig, "container config"),
        host=typed(host, HostConfig, "HostConfig"),
        networks=networks,
        name=name,
        platform=platform,
    )


def _lists(body: Mapping[str, Any]) -> dict[str, Any]:
    """Cmd, Entrypoint and Shell may be one string: it is then one word, as Docker takes it."""
    return {
        key: [value] if key in ("Cmd", "Entrypoint", "Shell") and isinstance(value, str) else value
        for key, value in body.items()
    }


def summary(container: Container, now: float, sizes: tuple[int, int] | None = None) -> dict[str, Any]:
    """One entry of `GET /containers/json`."""
    state = container.state
    started, finished = parse_rfc3339(state.started_at), parse_rfc3339(state.finished_at)
    out: dict[str, Any] = {
        "Id": container.id,
        "Names": ["/" + container.name],
        "Image": container.image_name,
        "ImageID": container.image_id,
        "Command": _command(container),
        "Created": int(parse_rfc3339(container.created)),
        "Ports": port_list(container),
        "Labels": container.labels,
        "State": state.status,
        "Status": status(state, now, started, finished),
        "HostConfig": {"NetworkMode": container.host.network_mode},
        "NetworkSettings": {"Networks": _networks(container)},
        "Mounts": [_mount(mount) for mount in container.mounts],
    }
    if sizes is not None:
        out["SizeRw"], out["SizeRootFs"] = sizes
    return out


def _command(container: Container) -> str:
    return " ".join(f"'{word}'" if " " in word else word for word in (container.path, *container.args))


def port_list(container: Container) -> list[dict[str, Any]]:
    """Published and exposed ports as flat entries, in a stable order."""
    if not container.state.running:
        return []
    out: list[dict[str, Any]] = []
    for port in sorted({*container.ports, *(container.config.exposed_ports or {})}):
        number, _, protocol = port.partition("/")
        entry: dict[str, Any] = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        bindings = container.ports.get(port)
        if not bindings:
            out.append(entry)
        for binding in bindings or ():
            public = int(binding.host_port) if binding.host_port.isdigit() else 0
            out.append({"IP": binding.host_ip, **entry, "PublicPort": public})
    return out


def inspect(
    container: Container, version: Version, *, execs: list[str] | None = None, sizes: tuple[int, int] | None = None
) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    directory = container.directory
    out: dict[str, Any] = {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": container.args,
        "State": _state(container.state),
        "Image": container.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": log_file(container),
        "Name": "/" + container.name,
        "RestartCount": container.state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": host_config(container.host),
        "GraphDriver": {"Name": "overlay", "Data": None},
        "Mounts": [_mount(mount) for mount in container.mounts],
        "Config": container_config(container.config),
        "NetworkSettings": _network_settings(container, version),
    }
    if version >= (1, 48):
        out["ImageManifestDescriptor"] = _manifest(container)
    if sizes is not None:
        out["SizeRw"], out["SizeRootFs"] = sizes
    return out


def _manifest(container: Container) -> dict[str, Any] | None:
    if not container.manifest:
        return None
    system, _, rest = container.platform.partition("/")
    architecture, _, variant = rest.partition("/")
    platform = {"architecture": architecture, "os": system} | ({"variant": variant} if variant else {})
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return {"mediaType": media_type, "digest": container.manifest, "size": 0, "platform": platform}


def _state(state: State) -> dict[str, Any]:
    out: dict[str, Any] = {
        "Status": state.status,
        "Running": state.active,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid if state.running else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health:
        out["Health"] = msgspec.to_builtins(state.health)
    return out


def host_config(host: HostConfig) -> dict[str, Any]:
    """HostConfig with every member clients look for."""
    out: dict[str, Any] = msgspec.to_builtins(host) | _HOST_DEFAULTS
    for name in _EMPTY_LISTS:
        out[name] = out[name] or []
    for name in _OMIT_EMPTY:
        if not out.get(name):
            out.pop(name, None)
    out["PortBindings"] = out["PortBindings"] or {}
    out["ConsoleSize"] = list(host.console_size)
    return out


def container_config(config: ContainerConfig) -> dict[str, Any]:
    """Config; what Docker leaves out when unset is left out."""
    out: dict[str, Any] = msgspec.to_builtins(config)
    for name in ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell"):
        if not out.get(name) and out.get(name) != 0:
            out.pop(name, None)
    for name in ("ArgsEscaped", "NetworkDisabled"):
        if not out[name]:
            del out[name]
    out["Labels"] = out["Labels"] or {}
    return out


def _mount(mount: MountPoint) -> dict[str, Any]:
    out: dict[str, Any] = {"Type": mount.type}
    if mount.name:
        out["Name"] = mount.name
    out |= {"Source": mount.source, "Destination": mount.destination}
    if mount.driver:
        out["Driver"] = mount.driver
    return out | {"Mode": mount.mode, "RW": mount.rw, "Propagation": mount.propagation}


def _ports(container: Container) -> dict[str, Any]:
    if not container.state.running:
        return {}
    out: dict[str, Any] = dict.fromkeys(container.config.exposed_ports or {})
    out |= {port: msgspec.to_builtins(bindings) or None for port, bindings in container.ports.items()}
    return out


def _networks(container: Container) -> dict[str, Any]:
    asked = container.networks
    joined = {endpoint.network: endpoint for endpoint in container.endpoints}
    names = [*joined, *(name for name in asked if name not in joined)]
    if not names:
        mode = container.host.network_mode
        if mode.startswith("container:"):
            return {}
        names = ["bridge" if mode in ("default", "") else mode]
    return {
        name: endpoint_settings(joined.get(name, EndpointSettings(network=name)), asked.get(name)) for name in names
    }


def endpoint_settings(endpoint: EndpointSettings, asked: EndpointRequest | None) -> dict[str, Any]:
    """One network of a container."""
    return {
        "IPAMConfig": asked.ipam_config if asked else None,
        "Links": asked.links if asked else None,
        "Aliases": endpoint.aliases or (asked.aliases if asked else None),
        "MacAddress": endpoint.mac,
        "DriverOpts": asked.driver_opts if asked else None,
        "GwPriority": asked.gw_priority if asked else 0,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.address,
        "IPPrefixLen": endpoint.prefix,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.address6,
        "GlobalIPv6PrefixLen": endpoint.prefix6,
        "DNSNames": endpoint.dns_names or None,
    }


def _network_settings(container: Container, version: Version) -> dict[str, Any]:
    first = next((e for e in container.endpoints if e.network == "bridge"), EndpointSettings(network="bridge"))
    out: dict[str, Any] = {"Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": _ports(container)}
    if version < (1, 52):
        out |= {
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": first.endpoint_id,
            "Gateway": first.gateway,
            "GlobalIPv6Address": first.address6,
            "GlobalIPv6PrefixLen": first.prefix6,
            "IPAddress": first.address,
            "IPPrefixLen": first.prefix,
            "IPv6Gateway": first.gateway6,
            "MacAddress": first.mac,
        }
    return out | {"Networks": _networks(container)}
