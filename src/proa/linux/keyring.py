"""keyctl(2): a session keyring of one's own."""

from __future__ import annotations

from proa.linux._libc import fail, syscall

KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEYCTL_DESCRIBE = 6

_keyctl = syscall("keyctl")


def join_session_keyring(name: bytes) -> int:
    """Make (or join) the session keyring `name` and return its serial number."""
    serial = _keyctl(KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0)
    if serial < 0:
        fail("keyctl(JOIN_SESSION_KEYRING)")
    return serial
