"""From the options of `run` and `create` to the document of POST /containers/create (Docker Engine API 1.51).

Only what was asked for is written: the engine's defaults stay the engine's.
"""

from __future__ import annotations

from proa.cli.values import (
    byte_size,
    duration_ns,
    key_values,
    nano_cpus,
    port_range,
    published_ports,
    restart_policy,
    throttled_device,
    ulimit,
    variables,
    variables_of_files,
    weighted_device,
)
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options

__all__ = ["create_document"]

_HOST_TEXTS = (
    ("cgroup-parent", "CgroupParent"),
    ("cgroupns", "CgroupnsMode"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("ipc", "IpcMode"),
    ("isolation", "Isolation"),
    ("pid", "PidMode"),
    ("runtime", "Runtime"),
    ("userns", "UsernsMode"),
    ("uts", "UTSMode"),
    ("volume-driver", "VolumeDriver"),
)
_HOST_NUMBERS = (
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-shares", "CpuShares"),
    ("memory-swappiness", "MemorySwappiness"),
    ("oom-score-adj", "OomScoreAdj"),
    ("pids-limit", "PidsLimit"),
)
_HOST_FLAGS = (
    ("init", "Init"),
    ("oom-kill-disable", "OomKillDisable"),
    ("privileged", "Privileged"),
    ("publish-all", "PublishAllPorts"),
    ("read-only", "ReadonlyRootfs"),
    ("rm", "AutoRemove"),
)
_HOST_LISTS = (
    ("add-host", "ExtraHosts"),
    ("cap-add", "CapAdd"),
    ("cap-drop", "CapDrop"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
    ("dns", "Dns"),
    ("dns-option", "DnsOptions"),
    ("dns-search", "DnsSearch"),
    ("group-add", "GroupAdd"),
    ("link", "Links"),
    ("volumes-from", "VolumesFrom"),
)
_THROTTLES = (
    ("device-read-bps", "BlkioDeviceReadBps"),
    ("device-read-iops", "BlkioDeviceReadIOps"),
    ("device-write-bps", "BlkioDeviceWriteBps"),
    ("device-write-iops", "BlkioDeviceWriteIOps"),
)
_HOST_SIZES = (
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("shm-size", "ShmSize"),
)
_CONFIG_TEXTS = (
    ("domainname", "Domainname"),
    ("hostname", "Hostname"),
    ("stop-signal", "StopSignal"),
    ("user", "User"),
    ("workdir", "WorkingDir"),
)


def create_document(options: Options, image: str, command: list[str], *, detach: bool) -> dict[str, Any]:
    """The document that creates the container the options describe.

    Raises Invalid for values that are not what their option takes.
    """
    tty, interactive = options.flag("tty"), options.flag("interactive")
    streams = _attached(options, detach=detach, interactive=interactive)
    document: dict[str, Any] = {
        "Image": image,
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "OpenStdin": interactive,
        "StdinOnce": interactive and "stdin" in streams,
        "Tty": tty,
    }
    if command:
        document["Cmd"] = command
    if options.given("entrypoint"):
        document["Entrypoint"] = [options.text("entrypoint")]  # [""] clears the image's
    for name, key in _CONFIG_TEXTS:
        if options.given(name):
            document[key] = options.text(name)
    if options.given("stop-timeout"):
        document["StopTimeout"] = options.number("stop-timeout")
    if options.given("env") or options.given("env-file"):
        document["Env"] = variables_of_files(options.texts("env-file"), "env-file") + variables(options.texts("env"))
    if options.given("label") or options.given("label-file"):
        lines = variables_of_files(options.texts("label-file"), "label-file") + options.texts("label")
        document["Labels"] = key_values(lines, "label")
    _health(options, document)
    host: dict[str, Any] = {}
    _ports(options, document, host)
    _volumes(options, document, host)
    _host_values(options, host)
    _network(options, document, host)
    document["HostConfig"] = host
    return document


def _attached(options: Options, *, detach: bool, interactive: bool) -> set[str]:
    asked = {text.lower() for text in options.texts("attach")}
    if not asked <= {"stdin", "stdout", "stderr"}:
        raise Invalid("invalid argument for --attach: valid streams are STDIN, STDOUT and STDERR", code="bad-stream")
    if detach:
        if asked:
            raise Invalid("conflicting options: cannot specify both --attach and --detach", code="bad-options")
        return set()
    if asked:
        return asked
    return {"stdin", "stdout", "stderr"} if interactive else {"stdout", "stderr"}


def _host_values(options: Options, host: dict[str, Any]) -> None:
    for name, key in _HOST_TEXTS:
        if options.given(name):
            host[key] = options.text(name)
    maps = [f"{name[:3]}={value}" for name in ("uidmap", "gidmap") for value in options.texts(name)]
    if maps:
        if options.given("userns"):
            raise Invalid("--userns and --uidmap or --gidmap exclude each other", code="userns-mode")
        host["UsernsMode"] = "map:" + ",".join(maps)
    for name, key in _HOST_NUMBERS:
        if options.given(name):
            host[key] = options.number(name)
    for name, key in _HOST_FLAGS:
        if options.given(name):
            host[key] = options.flag(name)
    for name, key in _HOST_LISTS:
        if options.given(name):
            host[key] = options.texts(name)
    for name, key in _HOST_SIZES:
        if options.given(name):
            host[key] = byte_size(options.text(name), name)
    if options.given("cpus"):
        host["NanoCpus"] = nano_cpus(options.text("cpus"))
    if options.given("ulimit"):
        host["Ulimits"] = [ulimit(text) for text in options.texts("ulimit")]
    if options.given("blkio-weight-device"):
        texts = options.texts("blkio-weight-device")
        host["BlkioWeightDevice"] = [weighted_device(text, "blkio-weight-device") for text in texts]
    for name, key in _THROTTLES:
        if options.given(name):
            host[key] = [throttled_device(text, name) for text in options.texts(name)]
    if options.given("gpus"):
        host["DeviceRequests"] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]], "Options": {}}]
    if options.given("device"):
        host["Devices"] = [_device(text) for text in options.texts("device")]
    if options.given("secret") or options.given("config"):
        from proa.cli.secrets import parse_secret

        kinds = ("secret", "config")
        host["Secrets"] = [parse_secret(text, kind) for kind in kinds for text in options.texts(kind)]
    if options.given("security-opt"):
        host["SecurityOpt"] = [_security(text) for text in options.texts("security-opt")]
    for name, key in (("sysctl", "Sysctls"), ("annotation", "Annotations"), ("storage-opt", "StorageOpt")):
        if options.given(name):
            host[key] = key_values(options.texts(name), name, need_value=True)
    if options.given("restart"):
        host["RestartPolicy"] = restart_policy(options.text("restart"))
    if options.given("log-driver") or options.given("log-opt"):
        config = key_values(options.texts("log-opt"), "log-opt", need_value=True)
        host["LogConfig"] = {"Type": options.text("log-driver"), "Config": config}


def _ports(options: Options, document: dict[str, Any], host: dict[str, Any]) -> None:
    if not (options.given("publish") or options.given("expose")):
        return
    exposed, bindings = published_ports(options.texts("publish"))
    for text in options.texts("expose"):
        ports, _, protocol = text.partition("/")
        for port in port_range(ports, "expose"):
            exposed[f"{port}/{protocol or 'tcp'}"] = {}
    document["ExposedPorts"] = exposed
    host["PortBindings"] = bindings


def _volumes(options: Options, document: dict[str, Any], host: dict[str, Any]) -> None:
    binds: list[str] = []
    for text in options.texts("volume"):
        source, mark, rest = text.partition(":")
        if not mark:
            document.setdefault("Volumes", {})[text] = {}
            continue
        if source.startswith((".", "~")):  # docker takes ./x as relative; the shell has usually expanded ~
            from posix import getcwd

            source = _normal(f"{getcwd()}/{source}")
        binds.append(f"{source}:{rest}")
    if binds:
        host["Binds"] = binds
    if options.given("tmpfs"):
        host["Tmpfs"] = dict(text.partition(":")[::2] for text in options.texts("tmpfs"))
    if options.given("mount"):
        from proa.cli.mounts import parse_mount

        host["Mounts"] = [parse_mount(text) for text in options.texts("mount")]


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _device(text: str) -> dict[str, str]:
    host, _, rest = text.partition(":")
    inner, _, rights = rest.partition(":")
    if inner and not inner.startswith("/") and not rights:
        inner, rights = "", inner
    if not host or not set(rights) <= set("rwm"):
        raise Invalid(f"invalid device `{text}`", code="bad-device", hint="write /dev/host[:/dev/container[:rwm]]")
    return {"PathOnHost": host, "PathInContainer": inner or host, "CgroupPermissions": rights or "rwm"}


def _security(text: str) -> str:
    name, _, value = text.partition("=")
    if name != "seccomp" or value in ("unconfined", "builtin", "") or value.startswith("{"):
        return text
    try:
        with open(value, encoding="utf-8") as file:
            return f"seccomp={file.read()}"
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the seccomp profile {value}: {error}", code="unreadable-file") from None


def _health(options: Options, document: dict[str, Any]) -> None:
    names = ("health-interval", "health-start-interval", "health-start-period", "health-timeout")
    others = ("health-cmd", "health-on-failure", "health-retries")
    asked = any(options.given(n) for n in (*names, *others))
    if options.flag("no-healthcheck"):
        if asked:
            raise Invalid("--no-healthcheck conflicts with --health-* options", code="bad-options")
        document["Healthcheck"] = {"Test": ["NONE"]}
    elif asked:
        check: dict[str, Any] = {}
        if options.given("health-cmd"):
            check["Test"] = ["CMD-SHELL", options.text("health-cmd")]
        for name, key in zip(names, ("Interval", "StartInterval", "StartPeriod", "Timeout"), strict=True):
            if options.given(name):
                check[key] = duration_ns(options.text(name), name)
        if options.given("health-retries"):
            check["Retries"] = options.number("health-retries")
        if options.given("health-on-failure"):
            check["OnFailure"] = options.text("health-on-failure")
        document["Healthcheck"] = check


def _network(options: Options, document: dict[str, Any], host: dict[str, Any]) -> None:
    if not any(options.given(name) for name in ("network", "net", "network-alias", "mac-address", "ip", "ip6")):
        return
    from proa.cli.network_spec import endpoints_of

    name, endpoints = endpoints_of(options)
    if name:
        host["NetworkMode"] = name
    if options.given("mac-address"):
        document["MacAddress"] = options.text("mac-address")
    if endpoints:
        document["NetworkingConfig"] = {"EndpointsConfig": endpoints}
