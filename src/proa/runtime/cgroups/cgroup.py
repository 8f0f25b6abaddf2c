"""What a container's cgroup can do, whatever the version; and what it has used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol
else:
    Protocol = object


class Stats:
    """What a cgroup used: nanoseconds and bytes; -1 where there is no limit or no such count.

    memory_stat: the kernel's own breakdown (memory.stat), keys differ between versions.
    io_bytes, io_operations: by (major, minor, operation), operation `read` or `write`.
    """

    def __init__(self) -> None:
        self.cpu_total_ns = 0
        self.cpu_user_ns = 0
        self.cpu_system_ns = 0
        self.cpu_periods = 0
        self.cpu_throttled_periods = 0
        self.cpu_throttled_ns = 0
        self.memory_usage = 0
        self.memory_max_usage = 0
        self.memory_limit = -1
        self.memory_failures = 0
        self.memory_stat: dict[str, int] = {}
        self.pids_current = 0
        self.pids_limit = -1
        self.io_bytes: dict[tuple[int, int, str], int] = {}
        self.io_operations: dict[tuple[int, int, str], int] = {}


class Cgroup(Protocol):
    """A container's cgroup: one directory in each hierarchy, by the same path."""

    @property
    def directories(self) -> Mapping[str, str]:
        """Its directory by hierarchy: controllers as in /proc/self/cgroup, empty for version 2."""

    def open_join_fds(self) -> tuple[list[int], int | None]:
        """What a process needs to get in: files to write "0" to, or (version 2) the directory to be born in.

        The caller closes them. Only single-threaded processes may use the files: version 1's move one thread each,
        which spares the 5-15 ms that moving a whole process costs.
        """

    def apply(self, resources: Mapping[str, Any]) -> None:
        """Set the limits of OCI `linux.resources` that are given, leave others. Device rules are set at creation only.

        Raises Unsupported for a limit whose controller is missing, Invalid or Conflict for values the kernel refuses.
        """

    def pids(self) -> list[int]:
        """Processes in it and below, as this process sees them."""

    def freeze(self) -> None:
        """Stop every process; returns when they are. Raises Unsupported, TimedOut."""

    def thaw(self) -> None:
        """Let them run again."""

    def kill(self) -> None:
        """SIGKILL to every process in it and below, also to those that are just being forked."""

    def stats(self) -> Stats:
        """What it has used so far."""

    def oom_kills(self) -> int:
        """How many processes the kernel killed because the cgroup's memory limit was reached."""

    def remove(self, timeout_s: float = 5.0, *, keep_parent: bool = False) -> None:
        """Remove it, waiting for its last processes to be gone, and its parent `proa` if that is empty then.

        keep_parent: for who soon makes another one, and removes the parents at last (`remove_empty_parents`). Raises
        Unavailable.
        """
