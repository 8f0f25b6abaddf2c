"""Leases: what a collection must leave although no image names it yet.

    with storage.leases.hold("pull docker.io/library/debian:12"):
        ...   # every blob and snapshot that is written or looked up in here stays

A lease protects everything that is added or looked at while it is held: each store calls `touch` *before* it looks, and
a collection asks `Sweep.delete_unless_used` for each deletion under the same lock. So whoever finds something may
rely on it until the lease ends, and an object is either found or deleted, never both.

A lease is also a file with an expiry. When the process dies its leases turn into claims on what was committed between
their beginning and that death, so that the next attempt finds finished layers; `expires` ends that.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from proa.errors import Corrupt, Exhausted, Unavailable
from proa.oci import Descriptor
from proa.storage.records import Records

DAY_S = 24 * 3600.0


class LeaseRecord(msgspec.Struct, omit_defaults=True):
    """A lease on disk; times are seconds since the epoch. `ended` is set when its process was found dead."""

    id: str
    reason: str
    created: float
    expires: float
    ended: float = 0.0


class Lease:
    """A held lease; a context manager that releases."""

    def __init__(self, owner: Leases, record: LeaseRecord) -> None:
        self._owner = owner
        self.record = record
        self.since = time.monotonic()

    def release(self) -> None:
        """End the promise; harmless when it has ended."""
        self._owner._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


class Leases:
    """The leases of one store. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._records = Records(directory, LeaseRecord)
        self._lock = threading.Lock()
        self._held: dict[str, Lease] = {}
        self._sweeps: list[Sweep] = []
        self._touched: dict[str, float] = {}
        self._pins: dict[int, Descriptor] = {}
        self._dead: dict[str, LeaseRecord] = {}
        self._adopt()

    def hold(self, reason: str, ttl_s: float = DAY_S) -> Lease:
        """Begin a lease. `ttl_s` is how long what it protects outlives a death of this process."""
        now = time.time()
        lease = Lease(self, LeaseRecord(secrets.token_hex(8), reason[:500], now, now + ttl_s))
        with self._lock:
            self._held[lease.record.id] = lease
        try:
            # Not fsynced: what a power loss makes of it costs a repeated download at worst.
            self._records.put(lease.record.id, lease.record, durable=False)
        except (Exhausted, Unavailable):
            pass  # likewise; checking and removing must work where nothing can be written any more
        return lease

    def touch(self, resource: str) -> None:
        """Somebody is about to look at, or add, `resource` (a digest or a chain ID)."""
        with self._lock:
            if self._held or self._sweeps:
                self._touched[resource] = time.monotonic()

    @contextmanager
    def pin(self, descriptor: Descriptor) -> Iterator[None]:
        """A name for `descriptor` is being written: a collection under way keeps it and all it refers to."""
        with self._lock:
            for sweep in self._sweeps:
                sweep.fresh.append(descriptor)
            pinned = object()
            self._pins[id(pinned)] = descriptor
        try:
            yield
        finally:
            with self._lock:
                del self._pins[id(pinned)]

    def walk(self) -> list[LeaseRecord]:
        """Every lease, held ones and those of dead processes."""
        with self._lock:
            held = [lease.record for lease in self._held.values()]
            return held + list(self._dead.values())

    @contextmanager
    def sweeping(self) -> Iterator[Sweep]:
        """Begin a collection: from here on, what is touched stays."""
        with self._lock:
            sweep = Sweep(self, list(self._pins.values()))
            self._sweeps.append(sweep)
        try:
            yield sweep
        finally:
            with self._lock:
                self._sweeps.remove(sweep)
                self._forget_touched()

    def expire(self, *, all_interrupted: bool = False) -> int:
        """Drop the leases of dead processes that have expired, or all of those; returns how many."""
        now = time.time()
        with self._lock:
            gone = [r for r in self._dead.values() if all_interrupted or r.expires <= now]
            for record in gone:
                del self._dead[record.id]
        for record in gone:
            self._records.delete(record.id, durable=False)
        return len(gone)

    def protects(self, resource: str, born: float, sweep: Sweep) -> bool:
        """Whether `resource`, committed at `born` (seconds since the epoch), must stay. Call with the lock held."""
        since = min((lease.since for lease in self._held.values()), default=sweep.since)
        if self._touched.get(resource, -1.0) >= min(since, sweep.since):
            return True
        return any(r.created <= born <= r.ended for r in self._dead.values())

    @property
    def lock(self) -> threading.Lock:
        """Held for one decision and one unlink, never for long."""
        return self._lock

    def held_since(self) -> float:
        """When the oldest held lease began, seconds since the epoch; infinity when none is held."""
        with self._lock:
            return min((lease.record.created for lease in self._held.values()), default=float("inf"))

    def _release(self, lease: Lease) -> None:
        with self._lock:
            if self._held.pop(lease.record.id, None) is None:
                return
            self._forget_touched()
        try:
            self._records.delete(lease.record.id, durable=False)
        except OSError:
            # What was done under the lease is done all the same; a later `expire` removes the file.
            with self._lock:
                self._dead[lease.record.id] = msgspec.structs.replace(lease.record, expires=0.0)

    def _forget_touched(self) -> None:
        if not self._held and not self._sweeps:
            self._touched.clear()

    def _adopt(self) -> None:
        self._records.tidy()
        now = time.time()
        for path, record in self._records.walk():
            if isinstance(record, Corrupt):
                path.unlink(missing_ok=True)
                continue
            if not record.ended:
                record.ended = now
                self._records.put(record.id, record, durable=False)
            self._dead[record.id] = record
        self.expire()


class Sweep:
    """One collection under way, as the leases see it."""

    def __init__(self, leases: Leases, fresh: list[Descriptor]) -> None:
        self._leases = leases
        self.since = time.monotonic()
        # Descriptors that were named since the collection began: more roots.
        self.fresh = fresh

    def delete_unless_used(
        self, resource: str, born: float, delete: Callable[[], None], still_garbage: Callable[[], bool]
    ) -> bool:
        """Call `delete` unless `resource` is leased, was touched since this began, or is no garbage any more."""
        with self._leases.lock:
            if self._leases.protects(resource, born, self) or not still_garbage():
                return False
            delete()
        return True
