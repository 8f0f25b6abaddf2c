"""`proa system service|status|stop`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.output import emit, note
from proa.client.caller import Caller
from proa.client.connection import Connection
from proa.client.endpoint import data_root, locate, run_dir, variable
from proa.errors import NotFound, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["SERVICE", "STATUS", "STOP"]

FORMAT: Row = ("format", "", "text", "string", "Format output: json, or a Go template")
SERVICE_ROWS: tuple[Row, ...] = (
    ("root", "", "text", "path", "Where images and containers are kept (default $PROA_ROOT)"),
    ("run", "", "text", "path", "Where the socket and run state are kept (default $PROA_RUN)"),
    ("tcp", "", "text", "IP:PORT", "Listen there too, with mutual TLS"),
    ("tcp-without-tls", "", "flag", "", "Without TLS, on loopback only: whoever runs there is root then"),
    ("tls-ca", "", "text", "path", "Who signs the certificates that clients must show"),
    ("tls-cert", "", "text", "path", "The engine's certificate"),
    ("tls-key", "", "text", "path", "The key of the engine's certificate"),
)
_STOP_PATIENCE_S = 30.0


def _service(settings: Settings, options: Options, words: list[str]) -> int:
    """Become the engine: everything it needs to know travels on its command line."""
    import os

    from proa.client.autostart import engine_command

    root, run = options.text("root") or data_root(), options.text("run") or run_dir()
    command = engine_command(os.path.abspath(root), os.path.abspath(run))
    host = settings.host or variable("PROA_HOST")
    if host:
        endpoint = locate(host)
        if not endpoint.path:
            raise Unsupported(
                f"the engine's own socket cannot be at {endpoint}",
                code="no-tcp-listener",
                hint="use unix:///path; --tcp makes it listen on a port besides",
            )
        command += ["--socket", endpoint.path]
    for name in ("tcp", "tls-ca", "tls-cert", "tls-key"):
        if options.given(name):
            command += [f"--{name}", options.text(name)]
    if options.flag("tcp-without-tls"):
        command.append("--tcp-without-tls")
    os.execv(command[0], [*command, *words])  # noqa: S606


def _status(settings: Settings, options: Options, _: list[str]) -> int:
    endpoint = locate(settings.host)
    document: dict[str, Any] = {"Host": str(endpoint), "Running": False, "Root": endpoint.root, "Run": endpoint.run}
    try:
        connection = Connection.open(endpoint, start=False)
    except Unavailable as error:
        why = error.message
    else:
        connection.close()
        why = ""
        caller = Caller(endpoint)
        reply, facts = caller.call("GET", "/version"), caller.call("GET", "/info")
        document |= {
            "Running": True,
            "Root": facts.get("DockerRootDir") or endpoint.root,
            "Version": reply["Version"],
            "ApiVersion": reply["ApiVersion"],
            "Containers": facts["Containers"],
            "ContainersRunning": facts["ContainersRunning"],
            "Images": facts["Images"],
        }
    if options.given("format"):
        from proa.cli.template import Template

        text = options.text("format")
        emit(Template("{{json .}}" if text == "json" else text).render(document) + "\n")
    elif document["Running"]:
        emit(
            f"engine:     running, version {document['Version']} (API {document['ApiVersion']})\n"
            f"socket:     {endpoint}\n"
            f"root:       {document['Root']}\n"
            f"containers: {document['ContainersRunning']} running of {document['Containers']}\n"
            f"images:     {document['Images']}\n"
        )
    else:
        emit(f"engine:     not running ({why})\nsocket:     {endpoint}\n")
    return 0 if document["Running"] else 3  # as systemctl status has it


def _stop(settings: Settings, _: Options, __: list[str]) -> int:
    import os
    import select

    endpoint = locate(settings.host)
    try:
        connection = Connection.open(endpoint, start=False)
    except Unavailable:
        note(f"no engine runs at {endpoint}")
        return 0
    pid = connection.peer_pid()
    try:
        engine = os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        engine = -1
    connection.close()
    try:
        Caller(endpoint).fetch("POST", "/proa/v1/stop")
    except NotFound:
        raise NotFound(f"the engine at {endpoint} is not proa's and cannot be stopped so", code="not-proa") from None
    if engine < 0 or select.select([engine], [], [], _STOP_PATIENCE_S)[0]:
        return 0
    raise Unavailable(f"the engine at {endpoint} still runs", code="engine-not-stopped", hint="look into its log")


SERVICE = Command("[OPTIONS]", "Run the engine in the foreground", SERVICE_ROWS, _service, most=0)
STATUS = Command("[OPTIONS]", "Show whether the engine runs, and where", (FORMAT,), _status, most=0)
STOP = Command("", "Stop the engine; containers keep running", (), _stop, most=0)
