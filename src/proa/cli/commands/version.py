"""`proa version` and `proa info`."""

from __future__ import annotations

from proa._version import __version__
from proa.cli.humanise import binary_size
from proa.cli.options import Command
from proa.cli.output import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate, variable
from proa.errors import ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["INFO", "VERSION"]

API_VERSION = "1.51"
FORMAT: Row = ("format", "f", "text", "string", "Format output: json, or a Go template")


def _client(context: str) -> dict[str, Any]:
    import sys
    from posix import uname

    python = ".".join([str(n) for n in sys.version_info[:3]])
    machine = uname()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine, machine.machine)
    return {
        "Version": __version__,
        "APIVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": python,
        "Os": "linux",
        "Arch": arch,
        "Context": context or variable("DOCKER_CONTEXT") or "default",
    }


def _render(document: Any, template: str) -> None:
    from proa.cli.template import Template

    emit(Template("{{json .}}" if template == "json" else template).render(document) + "\n")


def _version(settings: Settings, options: Options, _: list[str]) -> int:
    client = _client(settings.context)
    failure: ProaError | None = None
    server = None
    try:
        reply = Caller(locate(settings.host)).call("GET", "/version")
        server = {**reply, "APIVersion": reply["ApiVersion"]}
    except ProaError as error:
        failure = error
    if options.given("format"):
        if failure is not None and ".Server" in options.text("format"):
            raise failure
        _render({"Client": client, "Server": server}, options.text("format"))
    else:
        lines = [
            "Client:",
            f" Version:           {client['Version']}",
            f" API version:       {client['APIVersion']}",
            f" Python version:    {client['PythonVersion']}",
            f" OS/Arch:           {client['Os']}/{client['Arch']}",
        ]
        if server is not None:
            lines += [
                "",
                f"Server: {(server.get('Platform') or {}).get('Name') or 'proa'}",
                " Engine:",
                f"  Version:          {server['Version']}",
                f"  API version:      {server['APIVersion']} (minimum version {server.get('MinAPIVersion', '')})",
                f"  Git commit:       {server.get('GitCommit', '')}",
                f"  Built:            {server.get('BuildTime', '')}",
                f"  OS/Arch:          {server['Os']}/{server['Arch']}",
                f"  Kernel version:   {server.get('KernelVersion', '')}",
            ]
        emit("\n".join(lines) + "\n")
    if failure is not None:
        raise failure
    return 0


_INFO_LINES = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Runtimes", "Runtimes"),
    ("Default Runtime", "DefaultRuntime"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Docker Root Dir", "DockerRootDir"),
    ("Debug Mode", "Debug"),
)


def _info(settings: Settings, options: Options, _: list[str]) -> int:
    document = Caller(locate(settings.host)).call("GET", "/info")
    if options.given("format"):
        _render({**document, "ClientInfo": _client(settings.context)}, options.text("format"))
        return 0
    lines = ["Client:", f" Version:    {__version__}", "", "Server:"]
    for label, key in _INFO_LINES:
        value = document.get(key)
        if value is None:
            continue
        text = (
            binary_size(value) if key == "MemTotal" else str(value).lower() if isinstance(value, bool) else str(value)
        )
        if isinstance(value, dict):
            text = " ".join(sorted(value))
        lines.append(f" {label}: {text}")
        if key == "Driver":
            lines += [f"  {name}: {detail}" for name, detail in document.get("DriverStatus") or ()]
    options_on = document.get("SecurityOptions") or ()
    if options_on:
        lines += [" Security Options:", *[f"  {o.replace('name=', '')}" for o in options_on]]
    lines += [f"WARNING: {warning}" for warning in document.get("Warnings") or ()]
    emit("\n".join(lines) + "\n")
    return 0


VERSION = Command("[OPTIONS]", "Show the proa version information", (FORMAT,), _version, most=0)
INFO = Command("[OPTIONS]", "Display system-wide information", (FORMAT,), _info, most=0)
