"""What a container does: start, stop, limits, and what it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from proa.client.calls import decode, exchange, json_stream
from proa.client.creation import port_bindings, restart_policy
from proa.client.flow import Flow, Request, Stream, operation, stream
from proa.client.http import query
from proa.client.stats import Stats
from proa.errors import Conflict, NotModified

__all__ = ["LifeCore", "WaitCondition"]

WaitCondition = Literal["not-running", "next-exit", "removed", "healthy", "unhealthy"]


class LifeCore:
    """The operations on a container's life."""

    _transport: Any

    @property
    def _path(self) -> str:
        """Of its resource in the API."""
        raise NotImplementedError

    def _take(self, body: bytes) -> None:
        """Keep what `inspect` shows of it now."""
        raise NotImplementedError

    @operation
    def start(self) -> Flow[None]:
        """Start it; a running one stays as it is.

        Raises NotFound or Denied when the command cannot be found or executed (codes `command-not-found`,
        `command-not-executable`), Conflict when it cannot be started now.
        """
        yield from self._do("start")

    @operation
    def stop(self, *, timeout_s: int | None = None, signal: str = "") -> Flow[None]:
        """Ask it to end, and kill it after the time-out (its own, else 10 s); a stopped one stays as it is."""
        yield from self._do(f"stop{query(t=None if timeout_s is None else str(timeout_s), signal=signal)}")

    @operation
    def restart(self, *, timeout_s: int | None = None, signal: str = "") -> Flow[None]:
        """Stop and start it."""
        yield from self._do(f"restart{query(t=None if timeout_s is None else str(timeout_s), signal=signal)}")

    @operation
    def kill(self, signal: str = "KILL") -> Flow[None]:
        """Send a signal by name (`TERM`, `SIGTERM`) or number.

        Raises Conflict when it does not run, Invalid for an unknown signal.
        """
        yield from self._do(f"kill{query(signal=signal)}")

    @operation
    def pause(self) -> Flow[None]:
        """Freeze its processes. Raises Conflict when it does not run or is frozen already."""
        yield from self._do("pause")

    @operation
    def unpause(self) -> Flow[None]:
        """Thaw its processes. Raises Conflict when it is not frozen."""
        yield from self._do("unpause")

    @operation
    def rename(self, name: str) -> Flow[None]:
        """Give it another name. Raises Conflict when another container has it."""
        yield from self._do(f"rename{query(name=name)}")
        self._take((yield from exchange("GET", f"{self._path}/json")))

    @operation
    def change_ports(
        self, *, add: Mapping[str, int | str | None] | None = None, remove: Sequence[str] = ()
    ) -> Flow[dict[str, list[str]]]:
        """Publish and unpublish ports, also while it runs; open connections stay open. Returns what is published now.

        add: as `ports` of a new container; remove: `80/tcp` for all of a port, or `[address:]8080:80/tcp`.
        Raises Conflict for a port that is taken (nothing changes then), NotFound for one that is not published.
        """
        document = {"Add": port_bindings(add or {}), "Remove": [*remove]}
        body = yield from exchange("POST", f"/proa/v1{self._path}/ports", document)
        ports = decode(body, dict[str, dict[str, list[dict[str, str]]]])["Ports"]
        return {port: [f"{place['HostIp']}:{place['HostPort']}" for place in places] for port, places in ports.items()}

    @operation
    def remove(self, *, force: bool = False, volumes: bool = False) -> Flow[None]:
        """Remove it, killing it first with `force`, and its anonymous volumes with `volumes`.

        Raises Conflict when it runs and `force` is not given.
        """
        yield from exchange("DELETE", f"{self._path}{query(force=force, v=volumes)}")

    @operation
    def wait(self, condition: WaitCondition = "not-running") -> Flow[int]:
        """Wait for its end (or removal, or health); returns the exit status, 0 for health.

        Raises Conflict when it has no healthcheck to wait for, or ends before it is as healthy as that.
        """
        body = yield from exchange("POST", f"{self._path}/wait{query(condition=condition)}")
        reply = decode(body, dict[str, Any])
        if reply.get("Error"):
            raise Conflict(str(reply["Error"].get("Message")), code="ended-first")
        return int(reply["StatusCode"])

    @operation
    def update(
        self,
        *,
        memory_bytes: int = 0,
        memory_swap_bytes: int = 0,
        memory_reservation_bytes: int = 0,
        cpus: float = 0.0,
        cpu_shares: int = 0,
        cpuset_cpus: str = "",
        cpuset_mems: str = "",
        pids_limit: int = 0,
        restart: str = "",
    ) -> Flow[None]:
        """Change limits and restart policy, also while it runs; what is not given stays.

        memory_swap_bytes: memory and swap together; -1 for no limit, also of memory and processes
        Raises Invalid for limits that cannot be, Conflict when more than that is in use.
        """
        document: dict[str, Any] = {
            "Memory": memory_bytes,
            "MemorySwap": memory_swap_bytes,
            "MemoryReservation": memory_reservation_bytes,
            "NanoCpus": round(cpus * 1e9),
            "CpuShares": cpu_shares,
            "CpusetCpus": cpuset_cpus,
            "CpusetMems": cpuset_mems,
        }
        if pids_limit:
            document["PidsLimit"] = pids_limit
        if restart:
            document["RestartPolicy"] = restart_policy(restart)
        yield from exchange("POST", f"{self._path}/update", document)
        self._take((yield from exchange("GET", f"{self._path}/json")))

    @operation
    def stats(self) -> Flow[Stats]:
        """What it uses now; CPU time is measured over a second."""
        return decode((yield from exchange("GET", f"{self._path}/stats{query(stream='0')}")), Stats)

    @stream
    def follow_stats(self) -> Stream[Stats]:
        """What it uses, every second until it ends."""
        yield from json_stream(Request("GET", f"{self._path}/stats{query(stream='1')}"), Stats)

    def _do(self, verb: str) -> Flow[None]:
        try:
            yield from exchange("POST", f"{self._path}/{verb}")
        except NotModified:
            pass  # it is as asked
