"""What a container uses, as the engine measures it (Docker Engine API 1.51, `GET /containers/{id}/stats`)."""

from __future__ import annotations

import msgspec

__all__ = ["Stats"]


class CpuUsage(msgspec.Struct, kw_only=True, frozen=True):
    """CPU time in nanoseconds."""

    total_usage: int = 0


class CpuStats(msgspec.Struct, kw_only=True, frozen=True):
    """A container's CPU time, and with it the machine's."""

    cpu_usage: CpuUsage = CpuUsage()
    system_cpu_usage: int = 0
    online_cpus: int = 0


class MemoryStats(msgspec.Struct, kw_only=True, frozen=True):
    """Bytes; `stats` holds the kernel's own counters."""

    usage: int = 0
    limit: int = 0
    stats: dict[str, int] = {}


class PidsStats(msgspec.Struct, kw_only=True, frozen=True):
    """Processes and threads."""

    current: int = 0
    limit: int = 0


class BlockEntry(msgspec.Struct, kw_only=True, frozen=True):
    """Bytes read or written on one block device."""

    major: int = 0
    minor: int = 0
    op: str = ""
    value: int = 0


class BlockStats(msgspec.Struct, kw_only=True, frozen=True):
    """Block I/O by device and operation."""

    io_service_bytes_recursive: list[BlockEntry] | None = None


class NetworkStats(msgspec.Struct, kw_only=True, frozen=True):
    """One interface's traffic."""

    rx_bytes: int = 0
    tx_bytes: int = 0


class Stats(msgspec.Struct, kw_only=True, frozen=True):
    """What a container uses; `precpu_stats` is the measurement before, which CPU shares are computed against."""

    read: str = ""
    cpu_stats: CpuStats = CpuStats()
    precpu_stats: CpuStats = CpuStats()
    memory_stats: MemoryStats = MemoryStats()
    pids_stats: PidsStats = PidsStats()
    blkio_stats: BlockStats = BlockStats()
    networks: dict[str, NetworkStats] = {}

    @property
    def cpu_percent(self) -> float:
        """Of one CPU, between the two measurements."""
        used = self.cpu_stats.cpu_usage.total_usage - self.precpu_stats.cpu_usage.total_usage
        passed = self.cpu_stats.system_cpu_usage - self.precpu_stats.system_cpu_usage
        return used / passed * self.cpu_stats.online_cpus * 100 if used > 0 and passed > 0 else 0.0

    @property
    def memory_bytes(self) -> int:
        """Memory without the file cache that could go."""
        cache = self.memory_stats.stats.get("total_inactive_file", self.memory_stats.stats.get("inactive_file", 0))
        return self.memory_stats.usage - cache if cache < self.memory_stats.usage else self.memory_stats.usage
