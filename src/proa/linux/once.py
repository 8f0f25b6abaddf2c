"""Remember what was found out once: `functools.lru_cache` without `functools`, which takes 3 ms to import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["once"]


def once(function: Callable[[], T]) -> Callable[[], T]:
    """`function`, called at most once in this process and those forked from it later; not once more when it raised."""
    found: list[T] = []

    def remembered() -> T:
        if not found:
            found.append(function())
        return found[0]

    remembered.__doc__ = function.__doc__
    return remembered
