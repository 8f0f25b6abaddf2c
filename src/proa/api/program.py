"""The engine service as a process: open the root, listen, serve, stop, and end itself when nobody needs it.

flags -> limits -> Engine.open (takes the root's lock; in a thread, while the server is imported)
      -> socket -> READY -> serve … -> SIGTERM, SIGINT, POST /proa/v1/stop or idleness
      -> socket gone -> requests in flight end -> Engine.close; containers keep running throughout
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from proa.api.activation import bind, inherited_socket, notify
from proa.api.logs import configure
from proa.errors import Invalid, ProaError

if TYPE_CHECKING:
    from proa.api.server import HttpServer
    from proa.api.service import Service
    from proa.api.sockets.tcp import TcpListener
    from proa.engine import Engine
    from proa.engine import config as settings

    Tcp = tuple[TcpListener, socket.socket]

log = logging.getLogger("proa.api")

T = TypeVar("T")

SOCKET_NAME = "engine.sock"
#: Requests in flight get this long when the service stops.
GRACE_SECONDS = 10.0
#: Descriptors that are never given to clients: storage, monitors and the way out of an emergency need some.
RESERVED_DESCRIPTORS = 128
#: Memory of a body this large goes back to the kernel with it. Left to itself, glibc raises the bound with every such
#: block that is freed, and keeps them: requests of megabytes, sent again and again, made an engine of 47 MiB one of 93.
LARGE_BYTES = 1 << 20
#: What was said last over TLS gets this long to go out.
LAST_WORDS_SECONDS = 2.0
OOM_SCORE = -500


def run(argv: Sequence[str] | None = None) -> int:
    """Run the service; returns the exit status: 0 after a stop, 1 when it could not start."""
    options = _parse(argv)
    os.umask(0o077)
    configure(options.log_level)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    descriptors = _raise_limit()
    _spare_from_oom()
    os.chdir("/")
    try:
        if os.geteuid():
            from proa.engine.rootless import enter

            enter(options.run)
        listener = inherited_socket()
        opened = _in_thread(lambda: _open(options))
        from proa.api import server  # noqa: F401  # imported while the engine opens
        from proa.engine.rootless import leave

        engine, tcp = opened()
    except (ProaError, OSError) as error:
        return _refused(error)
    path = None if listener else options.socket or options.run / SOCKET_NAME
    try:
        if listener is None:
            assert path is not None
            listener = bind(path)
        asyncio.run(_serve(engine, listener, path, options.idle_exit, descriptors, tcp))
    except ProaError as error:
        return _refused(error)
    finally:
        if not engine.busy:
            leave(options.run)
        engine.close()
    log.info("stopped; containers keep running")
    # A thread may still sit in a transfer nobody wants: do not wait for it as the interpreter's own exit would.
    logging.shutdown()
    os._exit(0)


def _refused(error: ProaError | OSError) -> int:
    text = f"{error.message}\n  hint: {error.hint}" if isinstance(error, ProaError) and error.hint else str(error)
    print(f"proa: {text}", file=sys.stderr)
    return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -I -m proa.api", description="The proa engine service.")
    parser.add_argument("--root", type=_absolute, required=True, help="directory of everything that is kept")
    parser.add_argument("--run", type=_absolute, required=True, help="directory of sockets and run state")
    parser.add_argument(
        "--socket", type=_absolute, help=f"where to listen (default: {SOCKET_NAME} in the run directory)"
    )
    parser.add_argument(
        "--idle-exit",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="end after that long without a client and without a running container (default: never)",
    )
    parser.add_argument("--tcp", default="", metavar="IP:PORT", help="listen there too, with mutual TLS")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--tls-{name}", type=_absolute, default=None, help="a PEM file, for --tcp")
    parser.add_argument("--tcp-without-tls", action="store_true", help="on loopback: whoever runs here is root then")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser.parse_args(argv)


def _tcp(options: argparse.Namespace, configured: settings.Tcp | None) -> Tcp | None:
    """What to listen on besides, bound already: the command line's if it says, else the file's.

    Raises Invalid, Unavailable.
    """
    if not options.tcp:
        if options.tls_ca or options.tls_cert or options.tls_key or options.tcp_without_tls:
            raise Invalid("--tls-ca, --tls-cert, --tls-key and --tcp-without-tls belong to --tcp", code="tcp-missing")
        if configured is None:
            return None
    from proa.api.sockets.tcp import TcpListener

    if options.tcp:
        ca, certificate, key = (str(f or "") for f in (options.tls_ca, options.tls_cert, options.tls_key))
        wanted = TcpListener(options.tcp, ca=ca, certificate=certificate, key=key, bare=options.tcp_without_tls)
    else:
        from proa.engine.config import config_path

        c = configured
        assert c is not None
        try:
            wanted = TcpListener(c.address, ca=c.tls_ca, certificate=c.tls_cert, key=c.tls_key, bare=c.without_tls)
        except Invalid as error:
            text = f"configuration file {config_path()}, [tcp]: {error.message}"
            raise Invalid(text, code=error.code, hint=error.hint) from None
    return wanted, wanted.bind()


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(text))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError(text)
    return value


def _raise_limit() -> int:
    """Raise the soft limit on descriptors to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1 << 20) if hard != resource.RLIM_INFINITY else 1 << 20
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
        return wanted
    return soft if soft != resource.RLIM_INFINITY else wanted


def _spare_from_oom() -> None:
    """Let the kernel end containers before the engine and its monitors, when memory is out. Needs CAP_SYS_RESOURCE."""
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(b"%d" % OOM_SCORE)
    except OSError:
        pass  # then it is as likely as any other to be chosen; the next command starts another one


def _open(options: argparse.Namespace) -> tuple[Engine, Tcp | None]:
    """The engine, and what it listens on besides; nothing of the root is touched when that cannot be."""
    from proa.engine import Engine
    from proa.engine.config import load_config
    from proa.linux.allocator import M_MMAP_THRESHOLD, mallopt

    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    config = load_config()
    tcp = _tcp(options, config.tcp)
    try:
        return Engine.open(options.root, options.run, config), tcp
    except BaseException:
        if tcp is not None:
            tcp[1].close()
        raise


def _in_thread(call: Callable[[], T]) -> Callable[[], T]:
    """Start the call in a thread; the result waits for its outcome and raises what it raised."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # noqa: BLE001 raised in the main thread
            outcome.append((None, error))

    thread = threading.Thread(target=work, name="open", daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    return result


async def _serve(
    engine: Engine, listener: socket.socket, path: Path | None, idle_exit: float, descriptors: int, tcp: Tcp | None
) -> None:
    from proa.api.accept import Acceptor
    from proa.api.dispatch import dispatch
    from proa.api.operations import ROUTES
    from proa.api.routes import Router
    from proa.api.server import HttpServer
    from proa.api.service import Service
    from proa.api.sockets.audit import AuditLog
    from proa.api.sockets.scoped import ScopedSockets

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    router = Router(ROUTES)
    service = Service(engine, stop=stopping.set, connections=lambda: server.connected)
    server = HttpServer(
        lambda request: dispatch(router, service, request),
        max_connections=max((descriptors - RESERVED_DESCRIPTORS) // 2, 16),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    service.audit = AuditLog(engine.root / "audit.log")
    service.sockets = ScopedSockets(server, engine.root / "sockets.json")
    service.sockets.resume()
    remote = None
    if tcp is not None:
        from proa.api.sockets.tcp import TcpDoor

        remote = TcpDoor(server, tcp[0])
        await remote.open(tcp[1])
    acceptor = Acceptor(server, listener)
    acceptor.start()
    notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serving {engine.root}")
    log.info("serving %s at %s", engine.root, path or "an inherited socket")
    # Clients elsewhere cannot start an engine, so one that listens for them stays.
    ends = idle_exit > 0 and tcp is None
    watch = loop.create_task(_idle(service, server, idle_exit, stopping)) if ends else None
    try:
        await stopping.wait()
    finally:
        notify("STOPPING=1")
        if path is not None:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 one system call
        await service.sockets.close()
        if remote is not None:
            await remote.close()
        await acceptor.close()  # whoever connected before the path went is served
        if watch is not None:
            watch.cancel()
        await server.end(GRACE_SECONDS)
        if remote is not None:
            await remote.ended(LAST_WORDS_SECONDS)
        service.pools.close()


async def _idle(service: Service, server: HttpServer, idle_exit: float, stopping: asyncio.Event) -> None:
    """Stop after `idle_exit` seconds in which no client was connected and no container ran. Wakes no oftener."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    while True:
        seen = server.requests_count
        await asyncio.sleep(max(since + idle_exit - loop.time(), idle_exit / 4))
        if (
            service.sockets
            or server.connected
            or server.requests_count != seen
            or await service.pools.quick(lambda: service.engine.busy)
        ):
            since = loop.time()
        elif loop.time() - since >= idle_exit:
            log.info("idle for %.0f s", idle_exit)
            stopping.set()
            return
