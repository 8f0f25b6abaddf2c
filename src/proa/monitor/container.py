"""The monitor: holds one container's streams, answers the engine, records the end, ends itself.

Life: a launcher starts the container (`starting`) -> wait, owning nothing but descriptors -> at the first event build
`Container` and serve -> the init ends -> drain the streams -> remove the cgroup -> exit.json -> `exit` -> flush slow
clients -> end.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from proa.errors import Conflict, Invalid, NotFound, ProaError, Unsupported
from proa.monitor import protocol, title
from proa.monitor.attach import LINGER_S
from proa.monitor.child import Child
from proa.monitor.execs import Exec, ExecProcess
from proa.monitor.launcher import Launcher, fork_launcher, launch_process, parse_launched
from proa.monitor.logs import rfc3339
from proa.monitor.loop import READ, Loop
from proa.monitor.protocol import Request
from proa.monitor.records import EXIT_FILE, STATE_FILE, ExitRecord, remove_record, write_record
from proa.monitor.scribe import open_container_log
from proa.monitor.server import Listener, Peer, Server
from proa.monitor.starting import foreign_of, take
from proa.monitor.streams import Streams, release_memory
from proa.monitor.waking import wake
from proa.runtime import cgroups
from proa.runtime.launching import Process

__all__ = ["Container"]

SIGKILL = 9
# Ended execs that can still be asked about.
ENDED_EXECS_KEPT = 100


class Container:
    """One running container, until it is over.

    message, fds: the handoff (`starting.take`); report: the last scribe's.
    """

    def __init__(self, loop: Loop, message: bytes, fds: Sequence[int], report: bytes = b"") -> None:
        handoff, taken = take(message, fds)
        request = handoff.request
        self._loop = loop
        self._state = handoff.state
        self._durable = request.durable
        self._wake = request.wake
        self._directory_fd = taken.directory
        self._config_fd = taken.config
        self._execs: dict[str, Exec] = {}
        self._launching: dict[str, Launcher] = {}
        self._reaping: set[int] = set()
        self._over = False
        self._foreign = foreign_of(request)
        self.server = Server(loop, self._handle)
        engine = self.server.adopt(socket.socket(fileno=taken.connection))
        engine.watching = True
        engine.listen()
        log = open_container_log(handoff, report)
        streams = Streams(
            loop,
            taken.outputs,
            taken.stdin,
            tty=request.tty,
            stdin_once=request.stdin_once,
            log=log,
            on_detach=partial(self.server.broadcast, {"event": "detached"}),
        )
        self._init = Child(loop, taken.pidfd, streams, ended=self._init_ended, drained=self._drained)
        for fd, how in zip(taken.clients, request.attach, strict=True):
            streams.attach(fd, how)
        name = os.path.basename(request.socket)
        self.server.listen(Listener(socket.socket(fileno=taken.socket), taken.socket_directory, name))

    def _save_state(self) -> None:
        write_record(self._directory_fd, STATE_FILE, self._state, durable=False)

    def _reap(self, pid: int) -> None:
        """Collect a launcher's exit whenever it comes, and a process that died in its hands."""
        pidfd = os.pidfd_open(pid)
        self._reaping.add(pid)

        def reap(_events: int) -> None:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            self._loop.close(pidfd)
            self._reaping.discard(pid)
            self._reap_strays()

        self._loop.watch(pidfd, READ, reap)

    def _reap_strays(self) -> None:
        """A process whose start failed is our child but nobody's `Child`; those and launchers wait by their pidfds.

        Called after each of the others was collected, as one of them may stand before a stray in the kernel's list. A
        stray that stays would keep the container's pid namespace, and so the container, from ending. Not while one is
        being started: it may have ended before its launcher could tell its pid.
        """
        if self._launching:
            return
        known = {self._state.pid, *self._reaping}
        known |= {state.pid for state in self._state.execs.values() if state.status is None}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in known:
                return
            os.waitpid(ended.si_pid, 0)

    def rest(self) -> None:
        """Nothing has happened for a while."""
        self._init.streams.settle()
        release_memory()

    # -- life and end ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the container has ended, its record is written and every client took its output."""
        loop = self._loop
        while not self._over:
            loop.turn()
        deadline = time.monotonic() + LINGER_S
        loop.call_at(deadline, lambda: None)
        children = (self._init, *(exec_.child for exec_ in self._execs.values()))
        while time.monotonic() < deadline:
            if self.server.flushed and all(child.streams.idle for child in children):
                break
            loop.turn()
        if self._wake is not None and not self.server.watched:
            wake(self._wake)

    def _init_ended(self, _child: Child) -> None:
        # With a pid namespace of its own everything has ended with the init, else what is left must be ended.
        for launcher in self._launching.values():
            os.kill(launcher.pid, SIGKILL)
        cgroup = self._cgroup()
        if cgroup is not None and cgroup.pids():
            cgroup.kill()

    def _drained(self, _child: Child | None = None) -> None:
        if self._over or self._launching or not self._init.drained:
            return
        if all(exec_.child.drained for exec_ in self._execs.values()):
            self._finish()

    def _finish(self) -> None:
        """Everything has ended and all output is read: complete the log, record the end, tell the engine."""
        init = self._init
        assert init.status is not None
        init.streams.finish()
        oom = False
        cgroup = self._cgroup()
        try:
            oom = cgroup is not None and cgroup.oom_kills() > 0
            if self._foreign is not None:
                self._foreign.end()
            if cgroup is not None:
                cgroup.remove(keep_parent=self.server.watched)  # the engine makes more, and ends less often
        except (OSError, ProaError) as error:
            title.report("cgroup removal", error)
        record = ExitRecord(
            id=self._state.id,
            boot_id=self._state.boot_id,
            pid=self._state.pid,
            start_time=self._state.start_time,
            status=init.status,
            signal=init.signal,
            oom=oom,
            started_at=self._state.started_at,
            time=rfc3339(time.time_ns()),
        )
        self._record(record)
        self.server.stop_listening()
        self.server.broadcast(
            {
                "event": "exit",
                "status": record.status,
                "signal": record.signal,
                "oom": oom,
                "time": record.time,
                "started_at": record.started_at,
            }
        )
        self._over = True

    def _record(self, record: ExitRecord) -> None:
        try:
            write_record(self._directory_fd, EXIT_FILE, record, durable=self._durable)
            remove_record(self._directory_fd, STATE_FILE)
        except OSError as error:  # disk full or directory gone: the engine still hears of the end
            title.report("exit record", error)

    # -- requests ----------------------------------------------------------------------------------------------

    def _handle(self, peer: Peer, request: Request, fds: list[int]) -> dict[str, Any] | None:
        if self._over:
            raise Conflict("the container has ended", code="container-ended", subject=self._state.id)
        match request:
            case protocol.WatchRequest():
                peer.watching = True
                return self._describe()
            case protocol.StateRequest():
                return self._describe()
            case protocol.AttachRequest():
                return self._attach(peer, request.attach, fds)
            case protocol.ExecRequest():
                self._exec(peer, request, fds)
                return None
            case protocol.TargetRequest():
                return self._describe_target()
            case protocol.AdoptRequest():
                return self._adopt(request, fds)
            case protocol.ExecStateRequest():
                return self._describe_exec(request.id)
            case protocol.ResizeRequest():
                return self._resize(request)
            case protocol.KillRequest():
                return self._kill(request)
            case protocol.PauseRequest():
                return self._pause()
            case protocol.ResumeRequest():
                return self._resume()
        raise Invalid("unexpected request to a running monitor", code="invalid-monitor-request")

    def _describe(self) -> dict[str, Any]:
        state = self._state
        status = "paused" if state.paused else "running" if self._init.running else "exited"
        answer: dict[str, Any] = msgspec.to_builtins(state)
        return {"status": status, **answer}

    def _describe_exec(self, exec_id: str) -> dict[str, Any]:
        self._find(exec_id)
        answer: dict[str, Any] = msgspec.to_builtins(self._state.execs[exec_id])
        return answer

    def _find(self, exec_id: str | None) -> Child:
        if exec_id is None:
            return self._init
        try:
            return self._execs[exec_id].child
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}", code="no-such-exec", subject=exec_id) from None

    def _attach(self, peer: Peer, how: protocol.Attach, fds: list[int]) -> dict[str, Any]:
        if not fds:
            raise Invalid("attach needs the client's socket", code="invalid-monitor-request")
        self._check_running()
        client = self._init.streams.attach(fds[0], how)
        del fds[0]
        if how.held:
            peer.on_close = client.release
        return {}

    def _cgroup(self) -> cgroups.Cgroup | None:
        # Looked up when needed, which is seldom: the object would cost every monitor that logs a line 200 KiB.
        return cgroups.open_existing(self._state.cgroup) if self._state.cgroup else None

    def _own_cgroup(self) -> cgroups.Cgroup:
        cgroup = self._cgroup()
        if cgroup is None:
            raise Unsupported("the container has no cgroup", code="no-cgroup", subject=self._state.id)
        return cgroup

    def _check_running(self) -> None:
        if not self._init.running:
            raise Conflict("the container has ended", code="container-ended", subject=self._state.id)

    def _resize(self, request: protocol.ResizeRequest) -> dict[str, Any]:
        child = self._find(request.exec)
        if not child.streams.tty or not child.running:
            raise Conflict("cannot resize: there is no terminal", code="no-terminal", subject=self._state.id)
        child.streams.resize(request.h, request.w)
        return {}

    def _kill(self, request: protocol.KillRequest) -> dict[str, Any]:
        if self._foreign is not None and request.exec is None and request.signal != SIGKILL:
            self._foreign.run("kill", *(["--all"] if request.all else []), self._foreign.id, str(request.signal))
            return {}
        if not request.all:
            self._find(request.exec).kill(request.signal)
        elif not self._state.cgroup:
            self._init.kill(request.signal)  # SIGKILL takes its pid namespace with it
        elif request.signal == SIGKILL:
            self._own_cgroup().kill()
        else:
            for pid in self._own_cgroup().pids():
                try:
                    os.kill(pid, request.signal)
                except ProcessLookupError:
                    pass
        if request.signal == SIGKILL and self._state.paused:
            self._resume()  # cgroup v1: a frozen process does not die before it thaws
        return {}

    def _pause(self) -> dict[str, Any]:
        if self._state.paused:
            raise Conflict("Container is already paused", code="already-paused", subject=self._state.id)
        self._check_running()
        if self._foreign is not None and self._foreign.pauses:
            self._foreign.run("pause", self._foreign.id)
        else:
            self._own_cgroup().freeze()
        return self._set_paused(True)

    def _resume(self) -> dict[str, Any]:
        if not self._state.paused:
            raise Conflict("Container is not paused", code="not-paused", subject=self._state.id)
        if self._foreign is not None and self._foreign.pauses:
            self._foreign.run("resume", self._foreign.id)
        else:
            self._own_cgroup().thaw()
        return self._set_paused(False)

    def _set_paused(self, paused: bool) -> dict[str, Any]:
        self._state.paused = paused
        self._save_state()
        self.server.broadcast({"event": "paused" if paused else "resumed"})
        return {}

    # -- execs -------------------------------------------------------------------------------------------------

    def _describe_target(self) -> dict[str, Any]:
        self._check_running()
        if self._foreign is not None:
            # Its runtime starts the process, as a child of nobody here.
            raise Unsupported("another runtime has the container", code="foreign-runtime", subject=self._state.id)
        state, cgroup = self._state, self._cgroup()
        return {
            "pid": state.pid,
            "start_time": state.start_time,
            "cgroup": {} if cgroup is None else cgroup.directories,
            "config": msgspec.Raw(os.pread(self._config_fd, os.fstat(self._config_fd).st_size, 0).rstrip()),  # a line
            "socket": state.socket,
        }

    def _check_takes_exec(self, exec_id: str) -> None:
        if exec_id in self._execs or exec_id in self._launching:
            raise Conflict(f"exec {exec_id} has been started already", code="exec-exists", subject=exec_id)
        self._check_running()

    def _exec(self, peer: Peer, request: protocol.ExecRequest, fds: list[int]) -> None:
        """Have a launcher of our own start it; the answer follows."""
        self._check_takes_exec(request.id)
        if self._state.paused:
            raise Conflict("Container is paused, unpause the container before exec", code="container-paused")
        if not fds:
            request.attach = None
        target = Process(self._state.pid, self._init.pidfd, self._state.start_time)
        launcher = fork_launcher(partial(launch_process, request, target, self._state.cgroup, self._config_fd))
        client_fd = fds.pop(0) if request.attach is not None else -1
        self._launching[request.id] = launcher
        self._loop.watch(launcher.fileno(), READ, partial(self._exec_launched, peer, request, client_fd))

    def _exec_launched(self, peer: Peer, request: protocol.ExecRequest, client_fd: int, _events: int) -> None:
        launcher = self._launching.pop(request.id)
        self._loop.forget(launcher.fileno())
        data, fds = launcher.receive()
        try:
            self._reap(launcher.pid)
            state = parse_launched(data)
        except (OSError, ProaError) as error:
            if client_fd >= 0:
                os.close(client_fd)
            peer.refuse(request, error)
            self._drained()
            return
        finally:
            launcher.close()
        process = ExecProcess.received(state, fds, stdin=request.stdin)
        exec_ = self._watch(process, request.attach, client_fd)
        exec_.child.look()  # who waits for a short command waits for its status
        peer.answer(request, {"pid": state.pid, "start_time": state.start_time})
        self._forget_old_execs()

    def _adopt(self, request: protocol.AdoptRequest, fds: list[int]) -> dict[str, Any]:
        """Watch what a lent launcher has started."""
        self._check_takes_exec(request.state.id)
        reaper_fd, *received = fds
        fds.clear()
        client_fd = received.pop() if request.attach is not None else -1
        process = ExecProcess.received(request.state, received, stdin=request.stdin)
        self._watch(process, request.attach, client_fd, reaper_fd)
        self._forget_old_execs()
        return {}

    def _watch(self, process: ExecProcess, attach: protocol.Attach | None, client_fd: int, reaper_fd: int = -1) -> Exec:
        id = process.state.id  # noqa: A001
        exec_ = self._execs[id] = Exec(
            self._loop,
            process,
            client_fd=client_fd,
            attach=attach,
            reaper_fd=reaper_fd,
            on_ended=self._exec_ended,
            on_drained=self._drained,
            on_detach=partial(self.server.broadcast, {"event": "detached", "exec": id}),
        )
        self._state.execs[id] = exec_.state
        return exec_

    def _exec_ended(self, exec_: Exec) -> None:
        self.server.broadcast(exec_.state.exit_event())
        self._reap_strays()

    def _forget_old_execs(self) -> None:
        execs = self._execs.items()
        ended = [exec_id for exec_id, exec_ in execs if exec_.child.drained and exec_.child.streams.idle]
        for exec_id in ended[:-ENDED_EXECS_KEPT]:
            del self._execs[exec_id], self._state.execs[exec_id]
