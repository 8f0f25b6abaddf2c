"""What the launcher of a container does: everything up to `started`, so that the monitor itself only takes over.

The monitor receives a `Handoff` and descriptors, in the order of `Taken`.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import msgspec

from proa.errors import Invalid
from proa.linux import process, vfork
from proa.linux.sockets import receive_fds
from proa.monitor import foreign, lent
from proa.monitor.foreign import Foreign
from proa.monitor.launcher import failure_record, linger
from proa.monitor.log_drivers import REMOTE, check_log
from proa.monitor.logs import rfc3339
from proa.monitor.protocol import LentExec, StartRequest, encode_line, parse_order, parse_start, read_line
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
from proa.runtime.ahead import Ahead, make_ahead
from proa.runtime.cgroups.spare import Spare, make_spare, remove_spares
from proa.runtime.launching import Launch, begin, rehearse_sharing, rehearse_steps
from proa.runtime.plan import Plan, compile_exec_plan, compile_plan

__all__ = ["Handoff", "Started", "Taken", "foreign_of", "rehearse", "start_container", "take"]


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


class Started(NamedTuple):
    """What the monitor is to have, message and descriptors, of which so many are to wake it.

    is_child: whether the process is this one's child, and not the monitor's. is_plain: whether a `Container` can be
    made of it without effect. owners: whose descriptors these are here.
    """

    message: bytes
    fds: list[int]
    waking: int
    is_child: bool
    is_plain: bool
    owners: tuple[object, ...]


def start_container(
    orders_fd: int, nursery_pid: int, monitor_pid: int, channel: socket.socket, rehearse_end: Callable[[], None]
) -> Started | None:
    """In the launcher: wait for the engine's connection, read the request, start, tell the engine.

    Or the engine borrows this launcher for an exec (`lent`). Tells of failure, too. Ends without a word
    when the nursery has no work any more. Returns what is to be handed over when there is a container, with
    `rehearse_end` done for its end while there was time.
    """
    monitor = ProcessIdentity(monitor_pid, process.start_time(monitor_pid))
    with socket.socket(fileno=orders_fd) as orders:
        ahead, spare = _prepare(orders, nursery_pid, rehearse_end)
        data, fds = receive_fds(orders, 64, 1)
    if not data:
        remove_spares(nursery_pid)
        return None
    connection = socket.socket(fileno=fds[0])
    try:
        line, fds = read_line(connection)
        order = parse_order(line)
        if isinstance(order, LentExec):
            lent.serve(connection, order, fds, channel)
            linger()
            return None
        with ExitStack() as undo:
            start = _Start(monitor, ahead, spare, undo)
            handoff, fds = start.run(order, fds)
            connection.sendall(encode_line(_started_event(handoff)))
            message = start.head() + encode_line(handoff)
            plain = order.log.driver not in REMOTE and not any(how.early for how in order.attach)
            owners = (connection, undo.pop_all())
            return Started(message, [connection.fileno(), *fds], start.waking, start.is_child, plain, owners)
    except ConnectionError:
        pass  # the engine or the monitor died meanwhile; everything is undone
    except Exception as error:  # noqa: BLE001 - whatever it was, the engine must hear of it
        connection.sendall(encode_line({"event": "failed", "error": failure_record(error)}))
    return None


def _prepare(
    orders: socket.socket, nursery_pid: int, rehearse_end: Callable[[], None]
) -> tuple[Ahead | None, Spare | None]:
    """Use the time until an order comes; one that is here already is not kept waiting."""
    ordered = select.poll()
    ordered.register(orders, select.POLLIN)
    if ordered.poll(0):
        return None, None
    rehearse()
    rehearse_end()
    if vfork.available():
        rehearse_sharing()  # before there is a namespace ahead, of which its process would be the first
    spare = make_spare(nursery_pid)
    try:
        return make_ahead(), spare
    except OSError:
        return None, spare  # no room for one more network namespace, say: the start will tell


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
    request = parse_start(encode_line(StartRequest(id="0" * 12, dir="/", socket="/", config=config, rootfs=root)))
    _plan(request.config, request.rootfs, tty=request.tty)
    compile_exec_plan(config, process_config)
    cgroups.rehearse("/proa/rehearsal", config["linux"]["resources"])
    pipes = StdioPipes(stdin=True)
    for fd in (*pipes.outputs, pipes.stdin_fd, *pipes.theirs):
        os.close(fd)
    identity = ProcessIdentity(os.getpid(), process.start_time(os.getpid()))
    state = MonitorState("0" * 12, boot_id(), 1, 1, identity, "/", "/", False, rfc3339(time.time_ns()))
    request = StartRequest(id="0" * 12, dir="/", socket="/", config={})
    _decoder.decode(encode_line(Handoff(request, state)))
    rehearse_steps()


def take(message: bytes, fds: Sequence[int]) -> tuple[Handoff, Taken]:
    """In the monitor: what was handed over.

    Before the JSON come the short id, how many of the first descriptors wake the monitor, how many of the last of
    those are outputs for the log only, and whether the monitor goes on adopting orphans.
    """
    handoff = _decoder.decode(message.split(b" ", 4)[4])
    request = handoff.request
    connection, listener, pidfd, *rest = fds
    clients = [rest.pop(0) for _ in request.attach]
    outputs = {rest.pop(0): name for name in stream_names(request.tty)}
    directory, config, socket_directory, *rest = rest
    stdin = rest.pop(0) if request.stdin else -1
    return handoff, Taken(connection, listener, pidfd, directory, config, socket_directory, outputs, stdin, clients)


class _Start:
    """One start: what is to be undone should it fail is on `undo`."""

    def __init__(self, monitor: ProcessIdentity, ahead: Ahead | None, spare: Spare | None, undo: ExitStack) -> None:
        self._monitor = monitor
        self._ahead = ahead
        self._spare = spare
        self._undo = undo
        self._logging = 0
        self._request: StartRequest
        self.waking = 0
        self.is_child = False

    def head(self) -> bytes:
        """What the monitor reads before it decodes anything (`take`)."""
        adopts = int(bool(self._request.runtime))
        return f"{self._request.id[:12]} {self.waking} {self._logging} {adopts} ".encode()

    def run(self, request: StartRequest, fds: list[int]) -> tuple[Handoff, list[int]]:
        """Start the container; returns what to hand over, and the descriptors after the connection's."""
        undo = self._undo
        self._request = request
        if request.fds != len(fds):
            raise Invalid("descriptors are missing", code="invalid-monitor-request")
        netns_fd = fds.pop(0) if request.netns else None
        userns_fd = fds.pop(0) if request.userns else None
        if len(fds) != len(request.attach):
            raise Invalid("one client socket per attach must come with a start", code="invalid-monitor-request")
        config, rootfs = request.config, request.rootfs
        request.config, request.rootfs = {}, []
        other = foreign_of(request)
        plan = _plan(config, rootfs, tty=request.tty) if other is None else None
        directory_fd = os.open(request.dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = Listener.bind(request.socket)
        undo.callback(listener.close)
        check_log(request.log, request.dir, request.id)
        path = cgroup_path(request)
        cgroup = None
        if path:
            if other is None or not other.makes_cgroups:
                resources = (config.get("linux") or {}).get("resources")
                cgroup = cgroups.create(path, resources, spare=self._spare)
                undo.callback(cgroup.remove)
            else:
                undo.callback(_remove_cgroup, path)
        pipes = None if request.tty else StdioPipes(stdin=request.stdin)
        remove_record(directory_fd, EXIT_FILE)
        config_fd = os.memfd_create("config", os.MFD_CLOEXEC)
        os.write(config_fd, encode_line(_config_of_execs(config) | ({"foreign": other} if other is not None else {})))
        launch: Launch
        if other is not None:
            if self._ahead is not None:
                self._ahead.leave()
            launch = foreign.begin(
                other, config, rootfs, stdio=stdio_of(pipes), netns_fd=netns_fd, path=path, cgroup=cgroup
            )
            undo.callback(launch.abandon)
        else:
            assert plan is not None
            # In a user namespace only another process could have it as a child.
            self.is_child = plan.user is None and userns_fd is None and not plan.join
            launch = begin(
                plan,
                stdio=stdio_of(pipes),
                cgroup=cgroup,
                netns_fd=netns_fd,
                userns_fd=userns_fd,
                sibling=not self.is_child,
                sharing=vfork.available(),
                ahead=self._ahead,
            )
            undo.callback(launch.abandon)
        state = MonitorState(
            id=request.id,
            boot_id=boot_id(),
            pid=launch.pid,
            start_time=launch.start_time,
            monitor=self._monitor,
            socket=request.socket,
            cgroup=path,
            tty=request.tty,
            started_at=rfc3339(time.time_ns()),
        )
        undo.callback(remove_record, directory_fd, STATE_FILE)
        write_record(directory_fd, STATE_FILE, state, durable=False)
        init = launch.outcome()
        outputs, stdin_fd = monitor_ends(pipes, init.console_fd, stdin=request.stdin)
        waking = [listener.socket.fileno(), init.pidfd, *fds, *outputs]
        sent = [*waking, directory_fd, config_fd, listener.directory_fd]
        if stdin_fd >= 0:
            sent.append(stdin_fd)
        # With a client attached, output is for more than the log.
        self.waking, self._logging = 1 + len(waking), 0 if fds else len(outputs)
        return Handoff(request, state, list(init.warnings)), sent


def _plan(config: dict[str, Any], rootfs: list[dict[str, Any]], *, tty: bool) -> Plan:
    plan = compile_plan(config, rootfs)
    if plan.terminal != tty:
        raise Invalid("`tty` and process.terminal must agree", code="invalid-start-request")
    return plan


def _config_of_execs(config: dict[str, Any]) -> dict[str, Any]:
    """What a later exec needs of config.json: all but what only the making of the container does."""
    linux = dict(config.get("linux") or {})
    for key in ("resources", "devices", "maskedPaths", "readonlyPaths", "sysctl"):
        linux.pop(key, None)
    kept = {key: value for key, value in config.items() if key not in ("mounts", "hooks", "linux")}
    return {**kept, "process": {"args": config["process"]["args"]}, "linux": linux}


def foreign_of(request: StartRequest) -> Foreign | None:
    """The other runtime that has the container, if one has."""
    if not request.runtime:
        return None
    run_dir = os.path.dirname(os.path.dirname(request.socket))
    directory = f"{run_dir}/runtimes/{request.id[:12]}"
    return Foreign(request.runtime, directory, request.id)


def _remove_cgroup(path: str) -> None:
    left = cgroups.open_existing(path)
    if left is not None:
        left.kill()
        left.remove()


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
