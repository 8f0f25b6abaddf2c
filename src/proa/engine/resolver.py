"""The engine's side of the resolver: its process, and what it is told about containers' names.

The resolver outlives the engine as monitors do (docs/decisions: who answers name queries). It is started with the first
container on a network with names, found again by its socket, and told all names anew by every new engine.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec

from proa import errors
from proa.engine.companion import connect_companion, start_companion, when_gone
from proa.engine.network_records import NetworkRecord
from proa.engine.types import Container, EndpointSettings
from proa.errors import NotFound, ProaError, Unavailable
from proa.linux.sockets import send_fds
from proa.monitor.nursery import NetworkNamespace
from proa.network.name_port import redirect_name_port

__all__ = ["Resolver"]

log = logging.getLogger(__name__)

SOCKET_FILE = "resolver.sock"
LOG_FILE = "resolver.log"

Find = Callable[[str], NetworkRecord]


class Resolver:
    """Tell the resolver who is called what. Thread-safe; starts the process when it is needed."""

    def __init__(self, run: Path, find: Find) -> None:
        """find: a network's record by name; `lost` is called, in a thread, when the process has died."""
        self._run = run
        self._find = find
        self._lock = threading.RLock()
        self._channel: socket.socket | None = None
        self.lost: Callable[[], None] = lambda: None

    def serve(self, record: Container, netns: NetworkNamespace | None) -> None:
        """Answer the container, at new sockets if there are some, and let others find it. Raises Unavailable."""
        named = [settings for settings in record.endpoints if settings.dns_names]
        if not named:
            return
        with self._lock:
            for settings in named:
                self._put(record, settings)
            client = {
                "id": record.id,
                "networks": [settings.network_id for settings in named],
                "forward": any(not self._internal(settings) for settings in record.endpoints),
                "servers": list(record.host.dns or []),
            }
            fds = [netns.udp_fd, netns.tcp_fd] if netns is not None and netns.udp_fd >= 0 else []
            self._send({"op": "serve", "client": client}, fds)
        if netns is not None and fds:
            redirect_name_port(netns.netfilter_fd, *fds)

    def _internal(self, settings: EndpointSettings) -> bool:
        try:
            return self._find(settings.network).internal
        except NotFound:
            return True

    def _put(self, record: Container, settings: EndpointSettings) -> None:
        self._send(
            {
                "op": "put",
                "network": settings.network_id,
                "title": settings.network,
                "container": record.id,
                "names": settings.dns_names,
                "addresses": [text for text in (settings.address, settings.address6) if text],
            }
        )

    def forget(self, record: Container, settings: EndpointSettings) -> None:
        """The container is no longer on that network."""
        with self._lock:
            if self._channel is not None:
                self._send({"op": "forget", "network": settings.network_id, "container": record.id})
                self.serve(record, None)
                if not any(each.dns_names for each in record.endpoints):
                    self._send({"op": "drop", "id": record.id})

    def drop(self, record: Container) -> None:
        """The container has ended."""
        with self._lock:
            if self._channel is None:
                return
            for settings in record.endpoints:
                if settings.dns_names:
                    self._send({"op": "forget", "network": settings.network_id, "container": record.id})
            self._send({"op": "drop", "id": record.id})

    def restore(self, records: Iterable[Container]) -> set[str]:
        """Tell everything anew; the ids of containers for which the resolver needs new sockets."""
        listed = list(records)
        with self._lock:
            self._send({"op": "clear"})
            served = set(self._state())
            for record in listed:
                self.serve(record, None)
            alive = {record.id for record in listed}
            for gone in served - alive:
                self._send({"op": "drop", "id": gone})
        return alive - served

    def _state(self) -> Collection[str]:
        self._send({"op": "state"})
        assert self._channel is not None
        answer = msgspec.json.decode(self._channel.recv(8 << 20), type=dict[str, list[str]])
        return answer["clients"]

    def end(self) -> None:
        """Nobody is served: a process that an earlier engine left may go."""
        with self._lock:
            if self._channel is None and (self._run / SOCKET_FILE).exists():
                self._channel = self._connect()
                if self._channel is not None:
                    self._watch(self._channel)
            if self._channel is not None:
                self.restore(())
                self._send({"op": "end"})

    def close(self) -> None:
        """Let go; it ends by itself when it serves nobody."""
        with self._lock:
            channel, self._channel = self._channel, None
            if channel is not None:
                # Not only closed: the thread that watches has a copy of it.
                channel.shutdown(socket.SHUT_RDWR)
                channel.close()

    # -- the process ---------------------------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """One message; a process that has died is started again and told all by `lost`."""
        for attempt in range(2):
            if self._channel is None:
                self._channel = self._connect() or self._start()
                self._watch(self._channel)
            try:
                send_fds(self._channel, msgspec.json.encode(message), fds or [])
                return
            except OSError as error:
                self._channel.close()
                self._channel = None
                if attempt:
                    raise Unavailable(
                        f"the resolver of this engine does not answer: {error}",
                        code="resolver-gone",
                        hint=f"{self._run / LOG_FILE} may say why",
                    ) from error

    def _connect(self) -> socket.socket | None:
        return connect_companion(self._run / SOCKET_FILE)

    def _start(self) -> socket.socket:
        path = self._run / SOCKET_FILE
        start_companion(
            "proa.resolver.program", errors, msgspec, title="proa resolver", path=path, log=self._run / LOG_FILE
        )
        channel = self._connect()
        if channel is None:
            raise Unavailable("the resolver did not start", code="resolver-gone", subject=str(path))
        return channel

    def _watch(self, channel: socket.socket) -> None:
        """Notice its death: names must be resolved again before somebody happens to start a container."""

        def lost() -> None:
            with self._lock:
                ours = self._channel is channel
                if ours:
                    channel.close()
                    self._channel = None
            if ours:
                time.sleep(0.1)  # one that dies at once again must not keep us busy
                try:
                    self.lost()
                except (OSError, ProaError) as error:
                    log.warning("the resolver has died and was not replaced: %s", error)

        when_gone(channel, "proa-resolver-watch", lost)
