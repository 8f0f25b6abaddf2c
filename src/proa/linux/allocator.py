"""The C library's allocator: mallopt(3)."""

from __future__ import annotations

from proa.linux._libc import call

M_MMAP_THRESHOLD = -3


def mallopt(parameter: int, value: int) -> bool:
    """Set a parameter of malloc for this process; False where it cannot be (musl has none)."""
    try:
        return call("mallopt")(parameter, value) == 1
    except AttributeError:
        return False
