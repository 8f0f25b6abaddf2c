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
from proa.monitor.launcher import Launcher, fork_launcher, launch_process, order_launcher, parse_launched
from proa.monitor.logs import LineLog, rfc3339
from proa.monitor.loop import READ, Loop
from proa.monitor.protocol import Request
from proa.monitor.records import EXIT_FILE, STATE_FILE, ExitRecord, remove_record, write_record
from proa.monitor.scribe import open_container_log
from proa.monitor.server import Listener, Peer, Server
from proa.monitor.starting import foreign_of, take
from proa.monitor.stdio import stream_names
from proa.monitor.streams import Streams, release_memory
from proa.monitor.waking import wake
from proa.runtime import cgroups
from proa.runtime.launching import Process

__all__ = ["Container"]

SIGHUP, SIGKILL = 1, 9
# How long an exec whose client left may take to end by itself.
HANGUP_PATIENCE_S = 2.0
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
        self._execs: dict[str, Child] = {}
        self._launching: dict[str, Launcher] = {}
        self._reaping: set[int] = set()
        self._over = False
        self._foreign = foreign_of(request)
        self.server = Server(loop, self._handle)
        engine = self.server.adopt(socket.socket(fileno=taken.connection))
        engine.watching = True
        engine.listen()
        log = open_container_log(handoff, report)
        streams = self._streams(taken.outputs, taken.stdin, tty=request.tty, stdin_once=request.stdin_once, log=log)
        self._init = Child(loop, taken.pidfd, streams, ended=self._init_ended, drained=self._drained)
        for fd, how in zip(taken.clients, request.attach, strict=True):
            streams.attach(fd, how)
        name = os.path.basename(request.socket)
        self.server.listen(Listener(socket.socket(fileno=taken.socket), taken.socket_directory, name))

    def _streams(
        self,
        outputs: dict[int, str],
        stdin_fd: int,
        *,
        tty: bool,
        stdin_once: bool,
        log: LineLog | None = None,
        exec_id: str | None = None,
    ) -> Streams:
        event = {"event": "detached"} if exec_id is None else {"event": "detached", "exec": exec_id}
        return Streams(
            self._loop,
            outputs,
            stdin_fd,
            tty=tty,
            stdin_once=stdin_once,
            log=log,
            on_detach=partial(self.server.broadcast, event),
        )

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
        children = (self._init, *self._execs.values())
        while time.monotonic() < deadline:
            if self.server.flushed and all(child.streams.idle for child in children):
                break
            loop.turn()
        if self._wake is not None and not self.server.watched:
            wake(self._wake)

    def _init_ended(self, _child: Child) -> None:
        # With a pid namespace of its own everything has ended with the init, else what is left must be ended.
        for launcher in self._launching.values():
            if launcher.pid:
                os.kill(launcher.pid, SIGKILL)
        cgroup = self._cgroup()
        if cgroup is not None and cgroup.pids():
            cgroup.kill()

    def _drained(self, _child: Child | None = None) -> None:
        if self._over or self._launching or not self._init.drained:
            return
        if all(child.drained for child in self._execs.values()):
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
            return self._execs[exec_id]
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

    def _exec(self, peer: Peer, request: protocol.ExecRequest, fds: list[int]) -> None:
        if request.id in self._execs or request.id in self._launching:
            raise Conflict(f"exec {request.id} has been started already", code="exec-exists", subject=request.id)
        self._check_running()
        if self._state.paused:
            raise Conflict("Container is paused, unpause the container before exec", code="container-paused")
        if not fds:
            request.attach = None
        launcher = None
        if request.lent and self._foreign is not None:
            os.close(fds.pop(0))  # its process would not be our child
        elif request.lent:
            order = protocol.LentExec(request, self._state.pid, self._state.start_time, self._state.cgroup)
            launcher = order_launcher(fds.pop(0), order, self._init_process(), self._config_fd)
        client_fd = fds.pop(0) if request.attach is not None else -1
        self._launch(peer, request, client_fd, launcher)

    def _init_process(self) -> Process:
        return Process(self._state.pid, self._init.pidfd, self._state.start_time)

    def _launch(self, peer: Peer, request: protocol.ExecRequest, client_fd: int, launcher: Launcher | None) -> None:
        """Wait for what the launcher tells; one of our own if there is none yet."""
        if launcher is None:
            launch = partial(launch_process, request, self._init_process(), self._state.cgroup, self._config_fd)
            try:
                launcher = fork_launcher(launch)
            except OSError:
                if client_fd >= 0:
                    os.close(client_fd)
                raise
        self._launching[request.id] = launcher
        self._loop.watch(launcher.fileno(), READ, partial(self._exec_launched, peer, request, client_fd))

    def _exec_launched(self, peer: Peer, request: protocol.ExecRequest, client_fd: int, _events: int) -> None:
        launcher = self._launching.pop(request.id)
        self._loop.forget(launcher.fileno())
        data, fds = launcher.receive()
        reaper_fd = -1
        try:
            if launcher.pid:
                self._reap(launcher.pid)
            elif not data:
                self._launch(peer, request, client_fd, None)  # it was killed before it began, or its nursery
                return
            state = parse_launched(data)
            if not launcher.pid:
                reaper_fd = launcher.detach()
        except (OSError, ProaError) as error:
            if client_fd >= 0:
                os.close(client_fd)
            peer.refuse(request, error)
            self._drained()
            return
        finally:
            launcher.close()
        pidfd = fds.pop(0)
        stdin_fd = fds.pop() if request.stdin else -1
        outputs = dict(zip(fds, stream_names(request.tty), strict=False))  # none, when they are discarded
        streams = self._streams(outputs, stdin_fd, tty=request.tty, stdin_once=True, exec_id=request.id)
        child = self._execs[request.id] = Child(
            self._loop,
            pidfd,
            streams,
            ended=partial(self._exec_ended, request.id),
            drained=self._exec_drained,
            reaper_fd=reaper_fd,
        )
        self._state.execs[request.id] = state
        streams.on_lost = partial(self._exec_client_lost, child)
        if request.attach is not None:
            streams.attach(client_fd, request.attach)
        child.look()  # who waits for a short command waits for its status
        peer.answer(request, {"pid": state.pid, "start_time": state.start_time})
        self._forget_old_execs()

    def _exec_ended(self, exec_id: str, child: Child) -> None:
        state = self._state.execs[exec_id]
        state.status, state.signal = child.status, child.signal
        if child.streams.ended:
            child.streams.finish(child.status)  # the client hears of it first
        event = {"event": "exec-exit", "exec": exec_id, "status": child.status, "signal": child.signal}
        self.server.broadcast({**event, "time": rfc3339(time.time_ns())})
        self._reap_strays()

    def _exec_client_lost(self, child: Child) -> None:
        """As a terminal's end does, and for who takes no notice a little later for good."""

        def end(number: int) -> None:
            try:
                child.kill(number)
            except ProcessLookupError:
                pass

        end(SIGHUP)
        self._loop.call_at(time.monotonic() + HANGUP_PATIENCE_S, partial(end, SIGKILL))

    def _exec_drained(self, child: Child) -> None:
        child.streams.finish(child.status)
        self._drained()

    def _forget_old_execs(self) -> None:
        ended = [exec_id for exec_id, child in self._execs.items() if child.drained and child.streams.idle]
        for exec_id in ended[:-ENDED_EXECS_KEPT]:
            del self._execs[exec_id], self._state.execs[exec_id]
