"""What a container shall be, as keyword parameters; one signature for run, create and run_detached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from proa.errors import Invalid

__all__ = ["Creation", "creation"]

Pull = Literal["missing", "always", "never"]


class Creation(NamedTuple):
    """A POST /containers/create, and what to do around it."""

    document: dict[str, Any]
    name: str
    platform: str
    pull: Pull
    input: bytes | None
    auto_remove: bool | None


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
    network: `bridge`, `none`, `host`, or a network's name
    memory_bytes, cpus, pids_limit: limits; 0 leaves the engine's default
    input: bytes for the process's stdin, then its end (run only)
    restart: `no`, `always`, `unless-stopped` or `on-failure[:times]`
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
        host["PortBindings"] = {_port(port): [_binding(where)] for port, where in ports.items()}
    lists = {"Binds": volumes, "CapAdd": cap_add, "CapDrop": cap_drop, "SecurityOpt": security_opt}
    host |= {key: list(values) for key, values in lists.items() if values}
    numbers = {"Memory": memory_bytes, "NanoCpus": round(cpus * 1e9), "PidsLimit": pids_limit}
    host |= {key: number for key, number in numbers.items() if number}
    flags = {"Privileged": privileged, "ReadonlyRootfs": readonly, "Init": init}
    host |= {key: True for key, flag in flags.items() if flag}
    if network:
        host["NetworkMode"] = network
    if tmpfs:
        host["Tmpfs"] = dict(tmpfs)
    if restart:
        policy, _, times = restart.partition(":")
        if times and not (times.isascii() and times.isdigit()):
            raise Invalid(f"invalid restart policy `{restart}`", code="bad-restart-policy", subject=restart)
        host["RestartPolicy"] = {"Name": policy, "MaximumRetryCount": int(times or 0)}
    return Creation({**config, "HostConfig": host}, name, platform, pull, input, auto_remove)


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
