"""A small single-threaded monitor for tests: starts containers as JSON lines ask, one reply per line.

Run as `python -I container_server.py`. pytest itself has threads under xdist, and processes with threads must not start
containers.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

from proa.errors import ProaError
from proa.linux import process as p
from proa.linux import tty
from proa.runtime import cgroups
from proa.runtime.launching import Process, Stdio, launch, launch_exec, preload
from proa.runtime.plan import compile_plan


class Running:
    """A started process, the ends of its streams that are ours, and its cgroup if it is a container."""

    def __init__(self, process: Process, fds: dict[str, int], cgroup: cgroups.Cgroup | None, config: Any) -> None:
        self.process = process
        self.fds = fds
        self.cgroup = cgroup
        self.config = config
        self.output = {"stdout": b"", "stderr": b""}
        self.result: tuple[int, int, int] | None = None


class Server:
    def __init__(self) -> None:
        self.running: dict[int, Running] = {}

    def _spawn(self, terminal: bool, start: Any) -> tuple[Process, dict[str, int]]:
        if terminal:
            process = start(Stdio())
            return process, {"stdin": process.console_fd, "stdout": os.dup(process.console_fd)}
        pipes = {name: os.pipe() for name in ("stdin", "stdout", "stderr")}
        theirs = Stdio(pipes["stdin"][0], pipes["stdout"][1], pipes["stderr"][1])
        ours = {"stdin": pipes["stdin"][1], "stdout": pipes["stdout"][0], "stderr": pipes["stderr"][0]}
        try:
            return start(theirs), ours
        except BaseException:
            for fd in ours.values():
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def start(self, config: Any, rootfs: Any, cgroup: str, resources: Any) -> dict[str, Any]:
        plan = compile_plan(config, rootfs)
        group = cgroups.create(cgroup, resources) if cgroup else None
        began = time.monotonic()
        try:
            process, fds = self._spawn(plan.terminal, lambda stdio: launch(plan, stdio=stdio, cgroup=group))
        except BaseException:
            if group is not None:
                group.remove()
            raise
        self.running[process.pid] = Running(process, fds, group, config)
        return {"pid": process.pid, "warnings": process.warnings, "seconds": time.monotonic() - began}

    def exec(self, target: int, process: Any) -> dict[str, Any]:
        container = self.running[target]
        started, fds = self._spawn(
            process.get("terminal", False),
            lambda stdio: launch_exec(
                container.process, process, config=container.config, stdio=stdio, cgroup=container.cgroup
            ),
        )
        self.running[started.pid] = Running(started, fds, None, container.config)
        return {"pid": started.pid, "warnings": started.warnings}

    def write(self, pid: int, text: str) -> dict[str, Any]:
        os.write(self.running[pid].fds["stdin"], text.encode())
        return {}

    def resize(self, pid: int, rows: int, columns: int) -> dict[str, Any]:
        tty.set_window_size(self.running[pid].fds["stdin"], rows, columns)
        return {}

    def read_until(self, pid: int, text: str, timeout: float = 10.0) -> dict[str, Any]:
        one = self.running[pid]
        deadline = time.monotonic() + timeout
        while text.encode() not in one.output["stdout"] and self._pump(one, deadline):
            pass
        return {"stdout": one.output["stdout"].decode(errors="replace")}

    def _pump(self, one: Running, deadline: float) -> bool:
        """Read once from whichever output has something; False when all ended or time is up."""
        left = {fd: name for name, fd in one.fds.items() if name != "stdin"}
        if not left:
            return False
        ready, _, _ = select.select(list(left), [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return False
        for fd in ready:
            try:
                chunk = os.read(fd, 65536)
            except OSError:  # EIO: the last user of the terminal is gone
                chunk = b""
            one.output[left[fd]] += chunk
            if not chunk:
                os.close(one.fds.pop(left[fd]))
        return True

    def _reap_others(self) -> None:
        """Collect joined processes that ended: their container's process 1 cannot end before."""
        for one in self.running.values():
            if one.result is None and select.select([one.process.pidfd], [], [], 0)[0]:
                one.result = p.waitid(p.P_PIDFD, one.process.pidfd, os.WEXITED)

    def wait(self, pid: int, timeout: float = 20.0) -> dict[str, Any]:
        """Until the process has ended; its container, if it is one, is removed."""
        one = self.running[pid]
        if not one.process.console_fd:
            os.close(one.fds.pop("stdin"))
        deadline = time.monotonic() + timeout
        while self._pump(one, deadline):
            pass
        while one.result is None and time.monotonic() < deadline:
            select.select([other.process.pidfd for other in self.running.values() if other.result is None], [], [], 0.5)
            self._reap_others()
        timed_out = one.result is None
        if timed_out:
            p.pidfd_send_signal(one.process.pidfd, signal.SIGKILL)
        result = one.result or p.waitid(p.P_PIDFD, one.process.pidfd, os.WEXITED)
        assert result is not None
        del self.running[pid]
        _pid, code, status = result
        for fd in (*one.fds.values(), one.process.pidfd):
            os.close(fd)
        reply: dict[str, Any] = {name: data.decode(errors="replace") for name, data in one.output.items()}
        reply["status"] = status if code == os.CLD_EXITED else 128 + status
        reply["timed_out"] = timed_out
        if one.cgroup is not None:
            reply["oom_kills"] = one.cgroup.oom_kills()
            one.cgroup.remove()
        return reply

    def signal(self, pid: int, number: int) -> dict[str, Any]:
        p.pidfd_send_signal(self.running[pid].process.pidfd, number)
        return {}

    def cgroup(self, pid: int, method: str, *arguments: Any) -> dict[str, Any]:
        result = getattr(self.running[pid].cgroup, method)(*arguments)
        if isinstance(result, cgroups.Stats):
            result = {
                name: getattr(result, name) for name in ("memory_limit", "memory_usage", "cpu_total_ns", "pids_current")
            }
        return {"result": result}

    def fds(self) -> dict[str, Any]:
        return {"result": sorted(os.listdir("/proc/self/fd"))}


def main() -> None:
    preload()
    server = Server()
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            reply = getattr(server, method)(*arguments)
        except ProaError as error:
            reply = {"error": error.to_record()}
        except Exception as error:
            reply = {"error": {"kind": "internal", "message": repr(error)}}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
