"""The engine's side of the nursery: the warm, single-threaded process that monitors are forked from."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import msgspec

import proa
from proa.errors import Corrupt, Invalid, TimedOut, Unavailable, from_record
from proa.linux.sockets import receive_fds, send_fds
from proa.monitor.borrowed import BorrowedLauncher
from proa.monitor.client import Channel, MonitorConnection
from proa.monitor.protocol import NetnsRequest, StartRequest, encode_line
from proa.monitor.sealed import import_locations, start_sealed
from proa.runtime import userns
from proa.runtime.cgroups.spare import remove_spares
from proa.runtime.channel import decode_failure

__all__ = ["IdMaps", "NetworkNamespace", "Nursery"]

LOG_FILE = "nursery.log"
START_TIMEOUT_S = 60.0
NETNS_TIMEOUT_S = 15.0
STOPPED_CHECK_S = 2.0


class IdMaps(Protocol):
    """The maps of a user namespace: (id inside, id outside, count)."""

    uids: list[tuple[int, int, int]]
    gids: list[tuple[int, int, int]]


class NetworkNamespace(NamedTuple):
    """A network namespace (loopback up) and sockets that live in it; nothing pins it in the file system.

    netns_fd: nsfs descriptor; route_fd: NETLINK_ROUTE; netfilter_fd: NETLINK_NETFILTER, -1 without kernel support;
    userns_fd: the new user namespace it belongs to, -1 when it is the engine's own; udp_fd, tcp_fd: sockets at
    127.0.0.11 and a free port for name queries, -1 when not asked for.
    """

    netns_fd: int
    route_fd: int
    netfilter_fd: int = -1
    userns_fd: int = -1
    udp_fd: int = -1
    tcp_fd: int = -1


class Nursery:
    """A running nursery. Thread-safe; it ends when this object is closed or the engine ends, monitors do not."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, log: Path) -> None:
        self._process = process
        self._channel = channel
        self._log = log
        self._lock = threading.Lock()

    @classmethod
    def start(cls, run_dir: Path) -> Nursery:
        """Start the process; does not wait until it is ready (the first request does).

        run_dir: existing directory; `nursery.log` in it receives what a dying nursery or monitor has to say.
        Raises OSError.
        """
        log = run_dir / LOG_FILE
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    process = start_sealed(
                        "proa.monitor.zygote",
                        "proa nursery",
                        theirs.fileno(),
                        import_locations(proa, msgspec),
                        stderr=log_fd,
                    )
                finally:
                    os.close(log_fd)
        except BaseException:
            ours.close()
            raise
        ours.settimeout(START_TIMEOUT_S)
        return cls(process, ours, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The nursery's process id."""
        return self._process.pid

    def alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

    def start_container(
        self,
        request: Mapping[str, Any],
        fds: Mapping[str, int | Sequence[int]] | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> MonitorConnection:
        """Fork a monitor, start the container in it, and return when its process runs.

        request: the fields of `protocol.StartRequest`; `attach` describes clients attached from the first byte.
        fds: {"netns": fd, "userns": fd, "attach": [fd, …]}; they stay the caller's to close.
        `connection.started` has {"pid", "start_time", "started_at"}. Raises the start's typed error (nothing is left
        behind then), TimedOut, or Unavailable when the nursery has ended.
        """
        fds = fds or {}
        try:
            message = msgspec.convert({**request}, StartRequest)
        except msgspec.ValidationError as error:
            raise Invalid(f"invalid start request: {error}", code="invalid-start-request") from error
        passed: list[int] = []
        netns = fds.get("netns")
        if isinstance(netns, int):
            message.netns = True
            passed.append(netns)
        userns = fds.get("userns")
        if isinstance(userns, int):
            message.userns = True
            passed.append(userns)
        clients = fds.get("attach", ())
        assert not isinstance(clients, int)
        passed += clients
        channel = Channel(self._fork("start"), message.socket)
        try:
            channel.send(message, passed)
            event = self._wait(channel, timeout_s)
        except BaseException:
            channel.close()
            raise
        if event is not None and event.get("event") == "started":
            return MonitorConnection(message.socket, channel, event)
        channel.close()
        if event is not None and event.get("event") == "failed":
            raise from_record(event["error"])
        raise self._broken(f"the monitor of container {message.id} ended before its container started")

    def lend(self) -> BorrowedLauncher:
        """A launcher that waits to run an exec; close it. Raises Unavailable."""
        return BorrowedLauncher(self._fork("start", socket.SOCK_SEQPACKET))

    def make_netns(
        self,
        id_maps: IdMaps | None = None,
        timeout_s: float = NETNS_TIMEOUT_S,
        *,
        names: bool = False,
        join_fd: int = -1,
    ) -> NetworkNamespace:
        """A new network namespace, or sockets in the one of `join_fd`, made by a child of the nursery.

        id_maps: make it in a new user namespace with these maps; names: with sockets for name queries. The caller
        closes the descriptors.
        """
        with self._fork("netns") as connection:
            connection.settimeout(timeout_s)
            try:
                request = NetnsRequest(None if id_maps is None else _mappings(id_maps), names)
                send_fds(connection, encode_line(request), [join_fd] if join_fd >= 0 else [])
                data, fds = receive_fds(connection, 1 << 16)
            except TimeoutError as error:
                raise TimedOut("the network namespace was not made in time", code="nursery-slow") from error
            except OSError as error:
                raise self._broken(f"the network namespace was not made: {error}") from error
        try:
            if not data:
                raise self._broken("the network namespace was not made")
            answer = msgspec.json.decode(data)
            if "error" in answer:
                raise from_record(answer["error"])
            kinds = answer["ok"]
            if len(fds) != len(kinds) or not {"netns_fd", "route_fd"} <= set(kinds):
                raise Corrupt(f"the nursery sent {len(fds)} descriptors for a network namespace")
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return NetworkNamespace(**dict(zip(kinds, fds, strict=True)))

    @contextmanager
    def hold_mounts(
        self, config: Mapping[str, Any], rootfs: Sequence[Mapping[str, Any]], timeout_s: float = START_TIMEOUT_S
    ) -> Iterator[int]:
        """The mounts of a container that does not run, for the time of the context: the pidfd of who has them.

        config: config.json, of which `root` and `mounts` count; rootfs: the mounts of its root file system. Raises what
        the mounting met, TimedOut, Unavailable.
        """
        with self._fork("mounts") as connection:
            connection.settimeout(timeout_s)
            try:
                connection.sendall(msgspec.json.encode({"config": config, "rootfs": rootfs}) + b"\n")
                data, fds = receive_fds(connection, 1 << 16)
            except TimeoutError as error:
                raise TimedOut("the container's files were not mounted in time", code="nursery-slow") from error
            except OSError as error:
                raise self._broken(f"the container's files were not mounted: {error}") from error
            if data[:1] == b"E":
                raise decode_failure(data[1:])
            if not fds:
                raise self._broken("the container's files were not mounted")
            try:
                yield fds[0]
            finally:
                os.close(fds[0])

    def kill(self) -> None:
        """End it at once, whatever it does: `alive` is false then."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the nursery; monitors and containers go on."""
        self._channel.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        remove_spares(self.pid)  # and the parents that were kept for the next container (`Container`)

    def _wait(self, channel: Channel, timeout_s: float) -> dict[str, Any] | None:
        """The channel's next event; of a nursery that was stopped (SIGSTOP) nothing is expected. Raises TimedOut."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            try:
                return channel.next_event(max(min(left, STOPPED_CHECK_S), 0.001))
            except TimedOut:
                if left <= STOPPED_CHECK_S or self._stopped():
                    raise

    def _stopped(self) -> bool:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in ("T", "t")

    def _fork(self, operation: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Ask for a child that runs `operation`; returns our end of the connection to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            try:
                with self._lock:
                    send_fds(self._channel, operation.encode(), [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self._broken(f"the nursery does not take requests: {error}") from error
        return ours

    def _broken(self, message: str) -> Unavailable:
        deadline = time.monotonic() + 0.2
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            said = self._log.read_bytes()[-2000:].decode(errors="replace").strip()
        except OSError:
            said = ""
        status = self._process.poll()
        return Unavailable(
            message + (f" (nursery exit status {status})" if status is not None else ""),
            code="nursery-gone",
            subject=str(self._log),
            hint=f"the end of {self._log}: {said}" if said else "",
        )


def _mappings(maps: IdMaps) -> userns.Mappings:
    uids, gids = (tuple(userns.Mapping(*each) for each in listed) for listed in (maps.uids, maps.gids))
    return userns.Mappings(uids, gids)
