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
from proa.linux.sockets import send_fds
from proa.monitor.launcher import failure_record
from proa.monitor.logs import log_path, open_log, rfc3339
from proa.monitor.protocol import StartRequest, encode_line, read_request
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
from proa.monitor.stdio import StdioPipes, monitor_ends, split_ends, stdio_of
from proa.runtime import cgroups
from proa.runtime.launching import Process, launch
from proa.runtime.plan import compile_plan

__all__ = ["Handoff", "Taken", "start_container", "take"]


class Handoff(msgspec.Struct):
    """A started container: its request without config and root mounts, and its state; `log` when there is one."""

    request: StartRequest
    state: MonitorState
    log: bool
    warnings: list[str] = []


class Taken(NamedTuple):
    """The descriptors of a handoff, by meaning, in the order they are sent."""

    directory: int
    config: int
    socket: int
    socket_directory: int
    pidfd: int
    log: int
    outputs: dict[int, str]
    stdin: int
    clients: list[int]


_decoder = msgspec.json.Decoder(Handoff)


def start_container(connection: socket.socket, monitor_pid: int, channel: socket.socket) -> None:
    """In the launcher: read the start request, start, tell the engine, hand over. Tells the engine of failure, too."""
    try:
        with ExitStack() as undo:
            handoff, fds = _start(connection, monitor_pid, undo)
            connection.sendall(encode_line(_started_event(handoff)))
            name = handoff.request.id[:12].encode()
            send_fds(channel, name + b"\n" + encode_line(handoff), fds)
            undo.pop_all()
    except ConnectionError:
        return  # the engine or the monitor died meanwhile; everything is undone
    except Exception as error:  # noqa: BLE001 - whatever it was, the engine must hear of it
        connection.sendall(encode_line({"event": "failed", "error": failure_record(error)}))


def take(message: bytes, fds: Sequence[int]) -> tuple[Handoff, Taken]:
    """In the monitor: what was handed over; a line with the container's short id comes before the JSON."""
    handoff = _decoder.decode(message[message.index(b"\n") :])
    request = handoff.request
    rest = list(fds)
    clients = rest[len(rest) - len(request.attach) :]
    del rest[len(rest) - len(request.attach) :]
    fixed = [rest.pop(0) for _ in range(5)]
    log = rest.pop(0) if handoff.log else -1
    outputs, stdin = split_ends(rest, tty=request.tty, stdin=request.stdin)
    return handoff, Taken(fixed[0], fixed[1], fixed[2], fixed[3], fixed[4], log, outputs, stdin, clients)


def _start(connection: socket.socket, monitor_pid: int, undo: ExitStack) -> tuple[Handoff, list[int]]:
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
    log_fds = _open_log(request)
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
    os.write(config_fd, encode_line(config))
    sent = [directory_fd, config_fd, listener.socket.fileno(), listener.directory_fd, init.pidfd, *log_fds]
    sent += monitor_ends(pipes, init.console_fd, stdin=request.stdin)
    return Handoff(request, state, bool(log_fds), list(init.warnings)), sent + fds


def _open_log(request: StartRequest) -> list[int]:
    driver = request.log.driver
    if driver == "none":
        return []
    if driver != "json-file":
        raise Invalid(f"unknown log driver {driver}", code="unknown-log-driver", subject=driver)
    return [open_log(log_path(request.dir, request.id))]


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
