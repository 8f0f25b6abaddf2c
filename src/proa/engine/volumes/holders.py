"""Who has which volume: containers made with it, those of them that run, and whoever replaces its contents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from proa.errors import Conflict, Unavailable

__all__ = ["Holders"]

# How long the start of a container waits for a volume to be filled: as long as copying tens of gigabytes takes.
FILL_WAIT_S = 600.0


class Holders:
    """Containers by volume and volumes by container, in memory: the engine's start fills it. Thread-safe."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._holders: dict[str, set[str]] = {}
        self._held: dict[str, set[str]] = {}
        self._running: dict[str, set[str]] = {}
        self._changing: set[str] = set()

    def hold(self, volume: str, container: str) -> None:
        """A container was made with the volume, which must not be removed while it exists."""
        with self._state:
            self._holders.setdefault(volume, set()).add(container)
            self._held.setdefault(container, set()).add(volume)

    def release(self, container: str) -> list[str]:
        """The container is gone; returns the volumes it held."""
        with self._state:
            held = sorted(self._held.pop(container, ()))
            for volume in held:
                self._holders[volume].discard(container)
                if not self._holders[volume]:
                    del self._holders[volume]
            return held

    def users(self, volume: str) -> list[str]:
        """Ids of the containers that hold a volume."""
        with self._state:
            return sorted(self._holders.get(volume, ()))

    def held_by(self, container: str) -> list[str]:
        """Names of the volumes that a container holds."""
        with self._state:
            return sorted(self._held.get(container, ()))

    def begin(self, volume: str, container: str) -> None:
        """The container is about to run with the volume. Raises Unavailable when it is being filled for too long."""
        with self._state:
            if not self._state.wait_for(lambda: volume not in self._changing, FILL_WAIT_S):
                raise Unavailable(f"volume {volume} is being filled", code="volume-busy", subject=volume)
            self._running.setdefault(volume, set()).add(container)

    def end(self, volume: str, container: str) -> None:
        """The container no longer runs."""
        with self._state:
            running = self._running.get(volume, set())
            running.discard(container)
            if not running:
                self._running.pop(volume, None)

    @contextmanager
    def changing(self, volume: str) -> Iterator[None]:
        """Replace what is in a volume; nothing starts with it meanwhile. Raises Conflict when one runs with it."""
        with self._state:
            running = sorted(self._running.get(volume, ()))
            if running or volume in self._changing:
                what = f"in use - [{', '.join(running)}]" if running else "being filled"
                raise Conflict(f"volume {volume} is {what}", code="volume-in-use", subject=volume)
            self._changing.add(volume)
        try:
            yield
        finally:
            with self._state:
                self._changing.discard(volume)
                self._state.notify_all()

    @contextmanager
    def removing(self, volume: str) -> Iterator[None]:
        """Remove a volume; nobody begins to hold it meanwhile. Raises Conflict, in Docker's words, when one does."""
        with self._state:
            if users := self.users(volume):
                raise Conflict(
                    f"remove {volume}: volume is in use - [{', '.join(users)}]", code="volume-in-use", subject=volume
                )
            if volume in self._changing:
                raise Conflict(f"remove {volume}: volume is in use", code="volume-in-use", subject=volume)
            yield
