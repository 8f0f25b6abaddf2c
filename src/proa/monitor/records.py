"""The files a monitor leaves in the container's directory, each replaced by rename.

    monitor.json   who watches what, while it runs: written before `started` is reported, removed after exit.json
    exit.json      how it ended: the only source of the exit status, durable before `exit` is reported

A process is identified by pid, start time (clock ticks since boot) and boot id together: pids are used again.
"""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from proa.monitor.logs import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "EXIT_FILE",
    "STATE_FILE",
    "ExecState",
    "ExitRecord",
    "MonitorState",
    "ProcessIdentity",
    "boot_id",
    "encode_record",
    "read_exit",
    "read_state",
    "remove_record",
    "write_record",
]

STATE_FILE = "monitor.json"
EXIT_FILE = "exit.json"


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process of one boot: the start time is in clock ticks since boot, as in /proc/PID/stat."""

    pid: int
    start_time: int


class ExecState(msgspec.Struct):
    """An exec: running until `status` is set; `signal` is 0 unless one killed it."""

    id: str
    pid: int
    start_time: int
    tty: bool = False
    status: int | None = None
    signal: int = 0

    def exit_event(self) -> dict[str, Any]:
        """What is told of its end (`protocol`), now."""
        event = {"event": "exec-exit", "exec": self.id, "status": self.status, "signal": self.signal}
        return {**event, "time": rfc3339(time.time_ns())}


class MonitorState(msgspec.Struct):
    """A running container (`pid` and `start_time` of its init) and its monitor; `cgroup` is empty for none.

    execs: for who asks the monitor; in the file only those of its last pause: nobody needs them once it is gone, and
    writing it twice an exec took 1 ms of it.
    """

    id: str
    boot_id: str
    pid: int
    start_time: int
    monitor: ProcessIdentity
    socket: str
    cgroup: str
    tty: bool
    started_at: str
    paused: bool = False
    execs: dict[str, ExecState] = {}


class ExitRecord(msgspec.Struct, frozen=True):
    """How a container ended. status: 0-255, 128 + signal when `signal` (else 0) killed it.

    `pid` and `start_time` are the init's; `started_at` and `time` (of the end) are RFC 3339 in nanoseconds.
    """

    id: str
    boot_id: str
    pid: int
    start_time: int
    status: int
    signal: int
    oom: bool
    started_at: str
    time: str


_encoder = msgspec.json.Encoder()
_state_decoder = msgspec.json.Decoder(MonitorState)
_exit_decoder = msgspec.json.Decoder(ExitRecord)


@functools.cache
def boot_id() -> str:
    """This boot's random id (random(4))."""
    fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)


def encode_record(record: msgspec.Struct) -> bytes:
    """What a record's file holds."""
    return _encoder.encode(record)


def write_record(directory_fd: int, name: str, record: msgspec.Struct, *, durable: bool) -> None:
    """Replace file `name`: write aside, rename; `durable` also syncs file and directory. Raises OSError."""
    aside = name + ".new"
    fd = os.open(
        aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd
    )
    try:
        content = encode_record(record)
        while content:
            content = content[os.write(fd, content) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(aside, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    if durable:
        os.fsync(directory_fd)


def remove_record(directory_fd: int, name: str) -> None:
    """Remove a record and its half-written successor, if they exist."""
    for entry in (name, name + ".new"):
        try:
            os.unlink(entry, dir_fd=directory_fd)
        except FileNotFoundError:
            pass


def read_state(directory: Path) -> MonitorState | None:
    """The monitor's state, or None when there is none; raises msgspec.DecodeError on a damaged file."""
    try:
        return _state_decoder.decode((directory / STATE_FILE).read_bytes())
    except FileNotFoundError:
        return None


def read_exit(directory: Path) -> ExitRecord | None:
    """The exit record, or None while there is none; raises msgspec.DecodeError on a damaged file."""
    try:
        return _exit_decoder.decode((directory / EXIT_FILE).read_bytes())
    except FileNotFoundError:
        return None
