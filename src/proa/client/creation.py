"""What a container shall be, as keyword parameters; one signature for run, create and run_detached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from proa.errors import Invalid

__all__ = ["Creation", "Healthcheck", "creation", "port_bindings", "restart_policy"]

Pull = Literal["missing", "always", "never"]


class Creation(NamedTuple):
    """A POST /containers/create, and what to do around it."""

    document: dict[str, Any]
    name: str
    platform: str
    pull: Pull
    input: bytes | None
    auto_remove: bool | None


class Healthcheck(NamedTuple):
    """How to tell that a container works; what is left open is the image's or the engine's choice.

    command: a line for the container's shell, or words; none takes the image's
    on_failure: what to do once it is unhealthy
    """

    command: str | Sequence[str] = ""
    interval_s: float = 0.0
    timeout_s: float = 0.0
    retries: int = 0
    start_period_s: float = 0.0
    start_interval_s: float = 0.0
    on_failure: Literal["none", "kill", "restart", "stop"] = "none"


def creation(
    image: str,
    command: Sequence[str] | str | None = None,
    *,
    name: str = "",
    entrypoint: Sequence[str] | str | None = None,
    env: Mapping[str, str] | None = None,
    workdir: str = "",
    user: str = "",
    hostname: str = "",
    labels: Mapping[str, str] | None = None,
    volumes: Sequence[str] = (),
    tmpfs: Mapping[str, str] | None = None,
    ports: Mapping[str, int | str | None] | None = None,
    network: str = "",
    network_aliases: Sequence[str] = (),
    memory_bytes: int = 0,
    cpus: float = 0.0,
    pids_limit: int = 0,
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    security_opt: Sequence[str] = (),
    privileged: bool = False,
    readonly: bool = False,
    init: bool = False,
    tty: bool = False,
    open_stdin: bool = False,
    input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
    restart: str = "",
    stop_signal: str = "",
    stop_timeout_s: int | None = None,
    health: Healthcheck | None = None,
    memory_swap_bytes: int = 0,
    cpu_shares: int = 0,
    cpuset_cpus: str = "",
    shm_bytes: int = 0,
    oom_score_adj: int = 0,
    ulimits: Mapping[str, int | tuple[int, int]] | None = None,
    sysctls: Mapping[str, str] | None = None,
    devices: Sequence[str] = (),
    group_add: Sequence[str] = (),
    dns: Sequence[str] = (),
    extra_hosts: Sequence[str] = (),
    pid: str = "",
    ipc: str = "",
    uts: str = "",
    log_driver: str = "",
    log_options: Mapping[str, str] | None = None,
    pull: Pull = "missing",
    platform: str = "",
    auto_remove: bool | None = None,
) -> Creation:
    """Parameters:
    image: a name such as `debian:12`, an id or a digest
    command: words, or one program's name; the image's own when None
    env, labels: mappings of names to values
    volumes: `/host/path:/container/path[:ro]` or `name:/container/path`
    tmpfs: container path to mount options
    ports: `80/tcp` (or `80`) to a host port, `"ip:port"`, or None for a free one
    network: `bridge`, `none`, `host`, or a network's name; network_aliases: further names it has there
    memory_bytes, cpus, pids_limit: limits; 0 leaves the engine's default
    input: bytes for the process's stdin, then its end (run only)
    restart: `no`, `always`, `unless-stopped` or `on-failure[:times]`
    health: how to tell that it works, see `Healthcheck`
    ulimits: `nofile` and such to one limit, or to a soft and a hard one
    devices: `/dev/host[:/dev/container[:rwm]]`
    extra_hosts: `name:address` lines for /etc/hosts
    pid, ipc, uts: whose namespace: empty for its own, `host`, or `container:NAME` (pid and ipc)
    pull: whether to pull the image when it is missing (default), always or never
    auto_remove: remove the container when it ends; None is yes for run and no for create and run_detached
    """
    config: dict[str, Any] = {"Image": image, "Tty": tty, "OpenStdin": open_stdin or input is not None}
    config |= {
        "StdinOnce": input is not None,
        "AttachStdout": True,
        "AttachStderr": True,
        "AttachStdin": input is not None,
    }
    host: dict[str, Any] = {}
    texts = {"WorkingDir": workdir, "User": user, "Hostname": hostname, "StopSignal": stop_signal}
    config |= {key: text for key, text in texts.items() if text}
    if command is not None:
        config["Cmd"] = [command] if isinstance(command, str) else list(command)
    if entrypoint is not None:
        config["Entrypoint"] = [entrypoint] if isinstance(entrypoint, str) else list(entrypoint)
    if env:
        config["Env"] = [f"{_name(key)}={value}" for key, value in env.items()]
    if labels:
        config["Labels"] = dict(labels)
    if ports:
        config["ExposedPorts"] = {_port(port): {} for port in ports}
        host["PortBindings"] = port_bindings(ports)
    lists = {"Binds": volumes, "CapAdd": cap_add, "CapDrop": cap_drop, "SecurityOpt": security_opt}
    host |= {key: list(values) for key, values in lists.items() if values}
    numbers = {"Memory": memory_bytes, "NanoCpus": round(cpus * 1e9), "PidsLimit": pids_limit}
    host |= {key: number for key, number in numbers.items() if number}
    lists = {"GroupAdd": group_add, "Dns": dns, "ExtraHosts": extra_hosts}
    host |= {key: list(values) for key, values in lists.items() if values}
    numbers = {"MemorySwap": memory_swap_bytes, "CpuShares": cpu_shares, "ShmSize": shm_bytes}
    host |= {key: number for key, number in (numbers | {"OomScoreAdj": oom_score_adj}).items() if number}
    texts = {"CpusetCpus": cpuset_cpus, "PidMode": pid, "IpcMode": ipc, "UTSMode": uts}
    host |= {key: text for key, text in texts.items() if text}
    if stop_timeout_s is not None:
        config["StopTimeout"] = stop_timeout_s
    if health is not None:
        config["Healthcheck"] = _healthcheck(health)
    if ulimits:
        host["Ulimits"] = [_ulimit(kind, limit) for kind, limit in ulimits.items()]
    if sysctls:
        host["Sysctls"] = dict(sysctls)
    if devices:
        host["Devices"] = [_device(device) for device in devices]
    if log_driver or log_options:
        host["LogConfig"] = {"Type": log_driver, "Config": dict(log_options or {})}
    flags = {"Privileged": privileged, "ReadonlyRootfs": readonly, "Init": init}
    host |= {key: True for key, flag in flags.items() if flag}
    if network:
        host["NetworkMode"] = network
    if network_aliases:
        endpoint = {"Aliases": [*network_aliases]}
        config["NetworkingConfig"] = {"EndpointsConfig": {network or "default": endpoint}}
    if tmpfs:
        host["Tmpfs"] = dict(tmpfs)
    if restart:
        host["RestartPolicy"] = restart_policy(restart)
    return Creation({**config, "HostConfig": host}, name, platform, pull, input, auto_remove)


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as the engine takes it. Raises Invalid."""
    policy, _, times = text.partition(":")
    if times and not (times.isascii() and times.isdigit()):
        raise Invalid(f"invalid restart policy `{text}`", code="bad-restart-policy", subject=text)
    return {"Name": policy, "MaximumRetryCount": int(times or 0)}


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    times = {
        "Interval": check.interval_s,
        "Timeout": check.timeout_s,
        "StartPeriod": check.start_period_s,
        "StartInterval": check.start_interval_s,
    }
    command = check.command
    test = ["CMD-SHELL", command] if isinstance(command, str) else ["CMD", *command]
    document: dict[str, Any] = {"Test": test if command else []}
    document |= {key: round(seconds * 1e9) for key, seconds in times.items() if seconds}
    return document | {"Retries": check.retries, "OnFailure": check.on_failure}


def port_bindings(ports: Mapping[str, int | str | None]) -> dict[str, list[dict[str, str]]]:
    """Ports to publish as HostConfig.PortBindings."""
    return {_port(port): [_binding(where)] for port, where in ports.items()}


def _name(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise Invalid(f"invalid name of an environment variable: {name!r}", code="bad-variable", subject=name)
    return name


def _port(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"


def _binding(where: int | str | None) -> dict[str, str]:
    if where is None:
        return {"HostIp": "", "HostPort": ""}
    address, _, port = str(where).rpartition(":")
    return {"HostIp": address.strip("[]"), "HostPort": port}


def _ulimit(kind: str, limit: int | tuple[int, int]) -> dict[str, Any]:
    soft, hard = (limit, limit) if isinstance(limit, int) else limit
    return {"Name": kind, "Soft": soft, "Hard": hard}


def _device(text: str) -> dict[str, str]:
    outside, _, rest = text.partition(":")
    inside, _, access = rest.partition(":")
    return {"PathOnHost": outside, "PathInContainer": inside or outside, "CgroupPermissions": access or "rwm"}
