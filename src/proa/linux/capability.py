"""Capabilities of this thread: capget(2), capset(2), the bounding and ambient sets (capabilities(7)).

Sets are int masks: bit n is capability number n.
"""

from __future__ import annotations

import errno
import struct

from proa.linux._libc import buffer, call, fail
from proa.linux.process import prctl

LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# struct __user_cap_header_struct { u32 version; int pid; }
CAP_HEADER = struct.Struct("=Ii")
# two struct __user_cap_data_struct { u32 effective, permitted, inheritable; }
CAP_DATA = struct.Struct("=6I")

_capget = call("capget")
_capset = call("capset")


def capget() -> tuple[int, int, int]:
    """The (effective, permitted, inheritable) sets."""
    header = buffer(CAP_HEADER.pack(LINUX_CAPABILITY_VERSION_3, 0))
    data = buffer(CAP_DATA.size)
    if _capget(header, data) < 0:
        fail("capget")
    e0, p0, i0, e1, p1, i1 = CAP_DATA.unpack(data.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets."""
    low = 0xFFFFFFFF
    data = CAP_DATA.pack(
        effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )
    header = buffer(CAP_HEADER.pack(LINUX_CAPABILITY_VERSION_3, 0))
    if _capset(header, data) < 0:
        fail("capset")


def last_capability() -> int:
    """The highest capability number the kernel knows."""
    number = 63
    while number and not _known(number):
        number -= 1
    return number


def _known(number: int) -> bool:
    try:
        prctl(PR_CAPBSET_READ, number)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def bounding() -> int:
    """The bounding set."""
    return sum(1 << number for number in range(last_capability() + 1) if prctl(PR_CAPBSET_READ, number))


def drop_bounding(number: int) -> None:
    """Remove one capability from the bounding set for good."""
    prctl(PR_CAPBSET_DROP, number)


def clear_ambient() -> None:
    """Empty the ambient set."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(number: int) -> None:
    """Add a capability, which must be permitted and inheritable, to the ambient set."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
