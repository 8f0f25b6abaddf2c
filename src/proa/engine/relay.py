"""The engine's side of the relay: its process, and what it is told about doors and containers.

The relay outlives the engine as monitors do. It is started with the first port that needs it, found again by its
socket, and told all that is open when it had to be started again.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from proa import errors
from proa.engine.companion import connect_companion, start_companion, when_gone
from proa.engine.doorbell import Doorbell
from proa.errors import ProaError, Unavailable
from proa.linux.sockets import receive_fds, send_fds
from proa.network.addresses import AnyNetwork
from proa.network.endpoint import PublishedPort
from proa.relay.door import REQUEST_BYTES, open_door

__all__ = ["Relay"]

log = logging.getLogger(__name__)

SOCKET_FILE = "relay.sock"
LOG_FILE = "relay.log"
_MESSAGE_BYTES = 1 << 20

Key = tuple[str, str, int]


class Relay:
    """A `proa.network.relay.Relay`. Thread-safe; starts the process when it is needed."""

    def __init__(self, run: Path, keeper: socket.socket | None = None) -> None:
        """keeper: who opens doors where the clients are, when they are in another network namespace."""
        self.everything = keeper is not None
        self._keeper = keeper
        self._run = run
        self._lock = threading.RLock()
        self._channel: socket.socket | None = None
        self._open: dict[Key, tuple[str, socket.socket]] = {}
        self._kept: list[object] = []
        self._doorbell = Doorbell(self._answer)

    def bind(self, protocol: str, host_ip: str, port: int) -> socket.socket:
        """A door. Raises OSError as bind(2) does, Unavailable."""
        if self._keeper is None:
            return open_door(protocol, host_ip, port, only_loopback=host_ip == "::")
        with self._lock:
            try:
                self._keeper.send(f"{protocol} {host_ip} {port}".encode())
                answer, fds = receive_fds(self._keeper, REQUEST_BYTES, 1)
            except OSError as error:
                raise _gone("the process that opens ports does not answer", error) from error
        if not fds:
            raise OSError(int(answer or errno.EPIPE), os.strerror(int(answer or errno.EPIPE)))
        return socket.socket(fileno=fds[0])

    def open(self, port: PublishedPort, targets: Sequence[str], door: socket.socket) -> None:
        """Carry what comes to this door to the container, at the first of its addresses that it listens at.

        Raises Unavailable.
        """
        key = _key(port)
        with self._lock:
            where = " ".join((str(port.container_port), *targets))
            known = self._open.get(key)
            self._open[key] = (where, door)
            if not self.everything and port.host_ip == "::" and self._channel is None and not self._find():
                self._doorbell.hang(door)
            elif known is not None and known[1] is door:
                self._ask("aim", *key, where)
            else:
                self._ask("take", *key, where, fds=[door.fileno()])

    def regain(self, port: PublishedPort) -> socket.socket | None:
        """The door that it has for this port since an earlier engine."""
        with self._lock:
            if self._channel is None and not self._find():
                return None
            try:
                _, fds = self._ask("give", *_key(port))
            except OSError:
                return None
            door = socket.socket(fileno=fds[0])
            # Not to be taken again, which would end the talk of udp clients.
            self._open[_key(port)] = ("", door)
            return door

    def shut(self, port: PublishedPort) -> None:
        """Close the door; connections live on."""
        with self._lock:
            known = self._open.pop(_key(port), None)
            if known is not None:
                self._doorbell.take(known[1])
                self._tell("shut", *_key(port))

    def part(self, target: str) -> None:
        """End the connections of a container that has gone."""
        with self._lock:
            self._tell("part", target)

    def keep(self, mark: int, versions: Sequence[int], near: Sequence[AnyNetwork]) -> None:
        """Keep clients' addresses of these IP versions, except those `near`, on sockets of that mark."""
        with self._lock:
            self._kept = [mark, "".join(map(str, versions)) or "-", *near]
            self._tell("keep", *self._kept)

    def settle(self, ports: Iterable[PublishedPort]) -> None:
        """Shut the doors of all other ports."""
        with self._lock:
            if self._channel is None and not self._find():
                return
            words, _ = self._ask("list")
            listed = {(words[i], words[i + 1], int(words[i + 2])) for i in range(0, len(words), 3)}
            for key in listed - {_key(port) for port in ports}:
                self._open.pop(key, None)
                self._ask("shut", *key)

    def close(self) -> None:
        """Let go; it ends by itself when nothing is open."""
        with self._lock:
            self._doorbell.close()
            self._open = {}
            channel, self._channel = self._channel, None
            if channel is not None:
                # Not only closed: the thread that watches has a copy of it.
                channel.shutdown(socket.SHUT_RDWR)
                channel.close()
            if self._keeper is not None:
                self._keeper.close()

    def _answer(self) -> None:
        """Somebody is at a door that nobody serves yet."""
        with self._lock:
            try:
                if self._open and self._channel is None and not self._find():
                    self._start()
            except (OSError, ProaError) as error:
                log.warning("the relay was not started: %s", error)

    # -- the process ---------------------------------------------------------------------------------------------------

    def _tell(self, *words: object) -> None:
        """A message for a relay that runs; when there is none it need not know."""
        if self._channel is not None:
            try:
                self._ask(*words)
            except Unavailable as error:
                log.warning("%s", error.message)

    def _ask(self, *words: object, fds: Sequence[int] = ()) -> tuple[list[str], list[int]]:
        """One message and its answer. Raises OSError for what it refuses, Unavailable."""
        message = " ".join(map(str, words)).encode()
        for attempt in range(2):
            if self._channel is None and not self._find():
                self._start()
                if words[0] == "take":
                    return [], []  # with all the others
            assert self._channel is not None
            try:
                return self._exchange(self._channel, message, fds)
            except (BrokenPipeError, ConnectionError, TimeoutError) as error:
                self._channel.close()
                self._channel = None
                if attempt:
                    raise _gone(f"the relay of this engine does not answer: {error}", error) from error
        raise AssertionError

    @staticmethod
    def _exchange(channel: socket.socket, message: bytes, fds: Sequence[int]) -> tuple[list[str], list[int]]:
        send_fds(channel, message, fds)
        data, given = receive_fds(channel, _MESSAGE_BYTES, 1)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "it has ended")
        number, *answer = data.decode().split()
        if number != "0":
            raise OSError(int(number), f"relay: {os.strerror(int(number))}")
        return answer, given

    def _find(self) -> bool:
        """Go on with a relay that runs; one that was left in another network namespace is ended."""
        channel = connect_companion(self._run / SOCKET_FILE)
        if channel is None:
            return False
        try:
            answer, _ = self._exchange(channel, b"where", ())
            if answer == [str(os.stat("/proc/thread-self/ns/net").st_ino)]:
                self._channel = channel
                self._watch(channel)
                if self._kept:
                    self._exchange(channel, " ".join(map(str, ("keep", *self._kept))).encode(), ())
                return True
            send_fds(channel, b"quit", ())
            channel.recv(1)
        except OSError as error:
            log.warning("a relay that an earlier engine left does not answer: %s", error)
        channel.close()
        return False

    def _start(self) -> None:
        """A new relay, told all that is open."""
        start_companion(
            "proa.relay.program", errors, title="proa relay", path=self._run / SOCKET_FILE, log=self._run / LOG_FILE
        )
        if not self._find():
            raise _gone("the relay did not start", None)
        assert self._channel is not None
        for key, (where, door) in self._open.items():
            if not where:
                continue  # regained, and not led anywhere yet
            self._doorbell.take(door)
            self._exchange(self._channel, " ".join(map(str, ("take", *key, where))).encode(), [door.fileno()])

    def _watch(self, channel: socket.socket) -> None:
        """Notice its death: ports must be open again before somebody happens to publish one."""

        def lost() -> None:
            time.sleep(0.1)  # one that dies at once again must not keep us busy
            with self._lock:
                if self._channel is not channel:
                    return
                channel.close()
                self._channel = None
                if self._open:
                    try:
                        self._start()
                    except (OSError, ProaError) as error:
                        log.warning("the relay has died and was not replaced: %s", error)

        when_gone(channel, "proa-relay-watch", lost)


def _key(port: PublishedPort) -> Key:
    return port.protocol, port.host_ip, port.host_port


def _gone(text: str, error: OSError | None) -> Unavailable:
    hint = f"{LOG_FILE} in the run directory may say why"
    return Unavailable(text, code="relay-gone", hint=hint, errno=error.errno if error else None)
