"""Answers of name servers, kept for as long as they say, within a budget of bytes."""

from __future__ import annotations

from typing import NamedTuple

from proa.resolver.message import HEADER, NOERROR, NXDOMAIN, TC, lifetimes, with_lifetimes

__all__ = ["Cache"]

LIMIT_BYTES = 2 << 20
LARGEST_BYTES = 16 << 10
LONGEST_S = 3600
LONGEST_NEGATIVE_S = 60

Key = tuple[object, ...]


class _Kept(NamedTuple):
    data: bytes
    places: list[int]
    since: float
    until: float


class Cache:
    """The oldest answer gives way when the budget is spent. `now` is a monotonic clock's seconds."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: dict[Key, _Kept] = {}
        self._size = 0

    def get(self, key: Key, now: float) -> bytearray | None:
        """The answer as it is after the time it was kept, with id 0."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now >= kept.until:
            self._drop(key)
            return None
        return with_lifetimes(kept.data, kept.places, int(now - kept.since))

    def put(self, key: Key, data: bytes, now: float) -> None:
        """Keep an answer if it may be kept. Raises ValueError for one that is malformed."""
        _, flags, _, answers, _, _ = HEADER.unpack_from(data)
        code = flags & 0xF
        seconds, places = lifetimes(data)
        if code not in (NOERROR, NXDOMAIN) or flags & TC or len(data) > LARGEST_BYTES or seconds <= 0:
            return
        positive = code == NOERROR and answers > 0
        seconds = min(seconds, LONGEST_S if positive else LONGEST_NEGATIVE_S)
        self._drop(key)
        self._kept[key] = _Kept(b"\0\0" + data[2:], places, now, now + seconds)
        self._size += len(data)
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= len(kept.data)
