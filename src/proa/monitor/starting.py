"""What the launcher of a container does: everything up to `started`, so that the monitor itself only takes over.

The monitor receives a `Handoff` and descriptors, in the order of `Taken`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import msgspec

from proa.errors import Invalid
from proa.linux import process
from proa.linux.sockets import receive_fds, send_fds
from proa.monitor.launcher import failure_record
from proa.monitor.logs import log_path, open_log, rfc3339
from proa.monitor.protocol import Inbox, StartRequest, encode_line, parse_request, read_request
from proa.monitor.records import (
    EXIT_FILE,
    STATE_FILE,
    MonitorState,
    ProcessIdentity,
    boot_id,
    remove_record,
    write_record,
)
from proa.monitor.server import Listener
from proa.monitor.stdio import StdioPipes, monitor_ends, stdio_of, stream_names
from proa.runtime import cgroups, defaults
from proa.runtime.launching import Process, launch
from proa.runtime.plan import compile_plan

__all__ = ["Handoff", "Taken", "rehearse", "start_container", "take"]


class Handoff(msgspec.Struct):
    """A started container: its request without config and root mounts, and its state."""

    request: StartRequest
    state: MonitorState
    warnings: list[str] = []


class Taken(NamedTuple):
    """The descriptors of a handoff, by meaning. Those whose events wake the monitor are sent first."""

    connection: int
    socket: int
    pidfd: int
    directory: int
    config: int
    socket_directory: int
    outputs: dict[int, str]
    stdin: int
    clients: list[int]


_decoder = msgspec.json.Decoder(Handoff)


def start_container(orders_fd: int, monitor_pid: int, channel: socket.socket) -> None:
    """In the launcher: wait for the engine's connection, read the request, start, tell the engine, hand over.

    Tells the engine of failure, too. Ends without a word when the nursery has no work any more.
    """
    rehearse()
    with socket.socket(fileno=orders_fd) as orders:
        data, fds = receive_fds(orders, 64, 1)
    if not data:
        return
    connection = socket.socket(fileno=fds[0])
    try:
        with ExitStack() as undo:
            handoff, sent, (waking, logging) = _start(connection, monitor_pid, undo)
            connection.sendall(encode_line(_started_event(handoff)))
            short_id = handoff.request.id[:12]
            head = f"{short_id} {waking} {logging} ".encode()
            send_fds(channel, head + encode_line(handoff), [connection.fileno(), *sent])
            undo.pop_all()
    except ConnectionError:
        return  # the engine or the monitor died meanwhile; everything is undone
    except Exception as error:  # noqa: BLE001 - whatever it was, the engine must hear of it
        connection.sendall(encode_line({"event": "failed", "error": failure_record(error)}))


def rehearse() -> None:
    """Go through the motions of a start without effect.

    In the nursery this lets the interpreter specialise the code; in a launcher that waits for work it takes the page
    faults of copy-on-write (3 us each on a virtual machine, hundreds of them) before the clock runs.
    """
    process_config: dict[str, Any] = {"args": ["true"], "env": ["PATH=/bin"], "capabilities": defaults.capabilities()}
    config: dict[str, Any] = {
        "process": process_config,
        "mounts": defaults.mounts(),
        "annotations": {"proa.seccomp": "default"},
        "linux": {
            "namespaces": defaults.namespaces(),
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
            "resources": {"devices": defaults.device_rules()},
        },
    }
    root: list[dict[str, Any]] = [
        {"type": "overlay", "source": "overlay", "options": ["lowerdir=/a:/b", "upperdir=/c", "workdir=/d"]}
    ]
    line = encode_line(StartRequest(id="0" * 12, dir="/", socket="/", config=config, rootfs=root))
    request, _ = parse_request(line, Inbox())
    assert isinstance(request, StartRequest)
    compile_plan(request.config, request.rootfs)
    cgroups.open_existing("/proa/rehearsal")
    pipes = StdioPipes(stdin=True)
    for fd in (*pipes.outputs, pipes.stdin_fd, *pipes.theirs):
        os.close(fd)
    process.start_time(os.getpid())
    rfc3339(time.time_ns())


def take(message: bytes, fds: Sequence[int]) -> tuple[Handoff, Taken]:
    """In the monitor: what was handed over.

    Before the JSON come the short id, how many of the first descriptors wake the monitor, and how many of the last of
    those are outputs for the log only.
    """
    handoff = _decoder.decode(message.split(b" ", 3)[3])
    request = handoff.request
    connection, listener, pidfd, *rest = fds
    clients = [rest.pop(0) for _ in request.attach]
    outputs = {rest.pop(0): name for name in stream_names(request.tty)}
    directory, config, socket_directory, *rest = rest
    stdin = rest.pop(0) if request.stdin else -1
    return handoff, Taken(connection, listener, pidfd, directory, config, socket_directory, outputs, stdin, clients)


def _start(connection: socket.socket, monitor_pid: int, undo: ExitStack) -> tuple[Handoff, list[int], tuple[int, int]]:
    request, fds = read_request(connection)
    if not isinstance(request, StartRequest):
        raise Invalid("the first request must be a start", code="invalid-monitor-request")
    netns_fd = fds.pop(0) if request.netns else None
    if len(fds) != len(request.attach):
        raise Invalid("one client socket per attach must come with a start", code="invalid-monitor-request")
    config = request.config
    plan = compile_plan(config, request.rootfs)
    if plan.terminal != request.tty:
        raise Invalid("`tty` and process.terminal must agree", code="invalid-start-request")
    request.config, request.rootfs = {}, []
    directory_fd = os.open(request.dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = Listener.bind(request.socket)
    undo.callback(listener.close)
    _make_log(request)
    path = cgroup_path(request)
    cgroup = None
    if path:
        cgroup = cgroups.create(path, (config.get("linux") or {}).get("resources"))
        undo.callback(cgroup.remove)
    pipes = None if request.tty else StdioPipes(stdin=request.stdin)
    remove_record(directory_fd, EXIT_FILE)
    init = launch(plan, stdio=stdio_of(pipes), cgroup=cgroup, netns_fd=netns_fd, sibling=True)
    undo.callback(_kill, init)
    state = MonitorState(
        id=request.id,
        boot_id=boot_id(),
        pid=init.pid,
        start_time=init.start_time,
        monitor=ProcessIdentity(monitor_pid, process.start_time(monitor_pid)),
        socket=request.socket,
        cgroup=path,
        tty=request.tty,
        started_at=rfc3339(time.time_ns()),
    )
    undo.callback(remove_record, directory_fd, STATE_FILE)
    write_record(directory_fd, STATE_FILE, state, durable=False)
    config_fd = os.memfd_create("config", os.MFD_CLOEXEC)
    os.write(config_fd, encode_line(_config_of_execs(config)))
    outputs, stdin_fd = monitor_ends(pipes, init.console_fd, stdin=request.stdin)
    waking = [listener.socket.fileno(), init.pidfd, *fds, *outputs]
    sent = [*waking, directory_fd, config_fd, listener.directory_fd]
    if stdin_fd >= 0:
        sent.append(stdin_fd)
    # With a client attached, output is for more than the log.
    counts = (1 + len(waking), 0 if fds else len(outputs))
    return Handoff(request, state, list(init.warnings)), sent, counts


def _config_of_execs(config: dict[str, Any]) -> dict[str, Any]:
    """What a later exec needs of config.json: all but what only the making of the container does."""
    linux = dict(config.get("linux") or {})
    for key in ("resources", "devices", "maskedPaths", "readonlyPaths", "sysctl"):
        linux.pop(key, None)
    kept = {key: value for key, value in config.items() if key not in ("mounts", "hooks", "linux")}
    return {**kept, "process": {"args": config["process"]["args"]}, "linux": linux}


def _make_log(request: StartRequest) -> None:
    """Refuse a log that could not be written: later the loss of lines would be silent."""
    driver = request.log.driver
    if driver == "json-file":
        os.close(open_log(log_path(request.dir, request.id)))
    elif driver != "none":
        raise Invalid(f"unknown log driver {driver}", code="unknown-log-driver", subject=driver)


def _kill(init: Process) -> None:
    """The process runs but cannot be accounted for: end it, and wait until it is over."""
    signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
    ended = select.poll()
    ended.register(init.pidfd, select.POLLIN)
    ended.poll(5000)


def cgroup_path(request: StartRequest) -> str:
    """The container's cgroup, a path below every hierarchy's root; empty for none."""
    name = str(request.cgroup.get("name", ""))
    return "/" + name.strip("/") if name else ""


def _started_event(handoff: Handoff) -> dict[str, Any]:
    state = handoff.state
    return {
        "event": "started",
        "pid": state.pid,
        "start_time": state.start_time,
        "started_at": state.started_at,
        "warnings": handoff.warnings,
    }
