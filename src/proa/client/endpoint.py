"""Where the engine is: PROA_HOST, then DOCKER_HOST, then the socket of this user's own engine.

    PROA_HOST, DOCKER_HOST   unix:///path, or tcp://host[:port] where somebody asked for it
    DOCKER_CONTEXT           the name of one of Docker's contexts, where neither of those is set
    DOCKER_TLS_VERIFY        TLS on TCP, see proa.client.tls
    PROA_ROOT                data: /var/lib/proa for root, else $XDG_DATA_HOME/proa (~/.local/share/proa)
    PROA_RUN                 sockets and run state: $PROA_ROOT/run when PROA_ROOT is set, so that a directory is a whole
                             engine; else /run/proa for root, else $XDG_RUNTIME_DIR/proa

Only an engine at its own place (no *_HOST, no context) is started on demand.
"""

from __future__ import annotations

from posix import environ, getuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.client.tls import Tls

__all__ = ["Endpoint", "locate", "own", "parse_host", "variable"]

SOCKET_NAME = "engine.sock"
TCP_PORT, TLS_PORT = 2375, 2376  # Docker's


def variable(name: str) -> str:
    """An environment variable, or an empty string (os.environ without importing os)."""
    return environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


class Endpoint:
    """An engine's address.

    path:  of its unix socket, or empty
    host, port: of its TCP listener, or empty
    tls: how TLS is spoken there, or None
    root, run: of an engine this client may start, or empty
    """

    __slots__ = ("host", "path", "port", "root", "run", "tls")

    def __init__(
        self,
        *,
        path: str = "",
        host: str = "",
        port: int = 0,
        root: str = "",
        run: str = "",
        tls: Tls | None = None,
    ) -> None:
        self.path = path
        self.host = host
        self.port = port
        self.root = root
        self.run = run
        self.tls = tls

    @property
    def starts(self) -> bool:
        """Whether an engine may be started here."""
        return bool(self.run)

    @property
    def authority(self) -> str:
        """What a request's Host header says."""
        if self.path:
            return "proa"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.authority}"


def parse_host(text: str, variable_name: str = "host", tls: Tls | bool | None = None) -> Endpoint:
    """`unix:///run/x.sock`, `tcp://host` or `tcp://host:port`.

    tls: how TLS is spoken on TCP; True is with Docker's files, None is what the environment says
    Raises Invalid for anything else.
    """
    scheme, mark, rest = text.partition("://")
    if mark and scheme == "unix" and rest.startswith("/"):
        return Endpoint(path=rest)
    if mark and scheme == "tcp":
        from proa.client.tls import settle

        settings = settle(tls)
        host, colon, port = rest.rstrip("/").rpartition(":")
        if not colon or port.endswith("]"):
            host, port = rest.rstrip("/"), str(TLS_PORT if settings else TCP_PORT)
        if host and "/" not in host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            return Endpoint(host=host.strip("[]"), port=int(port), tls=settings)
    from proa.errors import Invalid

    raise Invalid(
        f"cannot use {variable_name} `{text}`: not unix:///path or tcp://host:port",
        code="bad-host",
        subject=text,
        hint="for a socket write unix:///run/proa/engine.sock",
    )


def data_root() -> str:
    """The data root of this user's engine."""
    root = variable("PROA_ROOT")
    if root:
        return _absolute(root)
    if getuid() == 0:
        return "/var/lib/proa"
    return (variable("XDG_DATA_HOME") or f"{variable('HOME')}/.local/share") + "/proa"


def run_dir() -> str:
    """The run directory of this user's engine."""
    run = variable("PROA_RUN")
    if run:
        return _absolute(run)
    if variable("PROA_ROOT"):
        return data_root() + "/run"
    if getuid() == 0:
        return "/run/proa"
    runtime = variable("XDG_RUNTIME_DIR")
    return f"{runtime}/proa" if runtime else data_root() + "/run"


def locate(host: str | Endpoint = "", tls: Tls | bool | None = None) -> Endpoint:
    """The engine to talk to: `host` if given, else what the environment says.

    tls: as `parse_host` has it
    Raises Invalid for a host that is not an address, NotFound for a context that does not exist.
    """
    if not isinstance(host, str):
        return host
    if host:
        return parse_host(host, tls=tls)
    for name in ("PROA_HOST", "DOCKER_HOST"):
        value = variable(name)
        if value:
            return parse_host(value, name, tls)
    if context := variable("DOCKER_CONTEXT"):
        from proa.client.contexts import endpoint_of

        return endpoint_of(context)
    return own()


def own() -> Endpoint:
    """This user's own engine."""
    run = run_dir()
    return Endpoint(path=f"{run}/{SOCKET_NAME}", root=data_root(), run=run)


def _absolute(path: str) -> str:
    path = path.rstrip("/") or "/"
    if path.startswith("/"):
        return path
    from posix import getcwd

    return f"{getcwd()}/{path}"
