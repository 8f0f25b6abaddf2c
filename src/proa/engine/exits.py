"""Exit records and exit codes: what a monitor left, and what a failed start means."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from proa.engine.clock import now
from proa.engine.leftovers import end_cgroup
from proa.errors import Corrupt, NotFound, ProaError
from proa.linux import process
from proa.storage import delete_record, read_record

EXIT = "exit.json"
MONITOR = "monitor.json"

# Docker's: the program is missing, it cannot be executed, anything else the runtime met.
_START_STATUS = {"command-not-found": 127, "command-not-executable": 126}


def start_failure_status(error: ProaError) -> int:
    """The exit code of a container that could not be started."""
    return _START_STATUS.get(error.code, 128)


def read(directory: Path) -> dict[str, Any] | None:
    """The exit record, None when there is none."""
    try:
        return dict(read_record(directory / EXIT, dict[str, Any]))
    except (NotFound, Corrupt):
        return None


def forget(directory: Path) -> None:
    """Remove the records of an earlier life."""
    for name in (EXIT, MONITOR):
        delete_record(directory / name, durable=False)


def monitor_state(directory: Path) -> dict[str, Any] | None:
    """What the monitor says of itself and its container, None when there is none."""
    try:
        return dict(read_record(directory / MONITOR, dict[str, Any]))
    except (NotFound, Corrupt):
        return None


def lost(directory: Path) -> dict[str, Any]:
    """The exit of a container whose monitor died without a record: end what is left of it, once and for all."""
    state = monitor_state(directory)
    if state and state.get("boot_id") == boot_id():
        kill_process(int(state.get("pid", 0)), int(state.get("start_time", 0)))
        if path := str(state.get("cgroup") or ""):
            end_cgroup(path)
        if path := str(state.get("socket") or ""):
            Path(path).unlink(missing_ok=True)
    return {
        "status": 128 + signal.SIGKILL,
        "error": "the container's monitor died; its exit status is not known",
        "time": now(),
    }


def end_monitor(directory: Path) -> None:
    """SIGKILL a monitor that does not answer; what it leaves is ended by whoever hears of its end (`lost`)."""
    state = monitor_state(directory)
    if state and state.get("boot_id") == boot_id():
        monitor = state.get("monitor") or {}
        kill_process(int(monitor.get("pid", 0)), int(monitor.get("start_time", 0)))


def signal_init(directory: Path, number: int) -> None:
    """Send a signal to a container's first process without its monitor."""
    state = monitor_state(directory)
    if state and state.get("boot_id") == boot_id():
        kill_process(int(state.get("pid", 0)), int(state.get("start_time", 0)), number)


def kill_process(pid: int, start_time: int, number: int = signal.SIGKILL) -> None:
    """Signal the process that had this pid at that start time; never another one that has the pid now."""
    if pid <= 1:
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process.start_time(pid) == start_time:
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def boot_id() -> str:
    """Distinguishes this boot of the machine from others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
