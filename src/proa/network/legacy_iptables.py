"""Ask the kernel for the FORWARD policy of legacy iptables, which nf_tables does not list.

Source: linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

__all__ = ["forward_policy_drops", "tables"]

_GET_INFO, _GET_ENTRIES = 64, 65
_FORWARD = 2
# struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
_INFO = struct.Struct("=32sI5I5III")
# struct ipt_entry: ip (84 bytes), nfcache, target_offset, next_offset, ...
_TARGET_OFFSET = struct.Struct("=H")
_TARGET_OFFSET_AT = 88
_VERDICT_AT = 32  # after struct xt_entry_target
_DROP = -1  # -NF_DROP - 1


def tables() -> set[str]:
    """Names of the legacy tables in use; asking this way loads none."""
    try:
        return set(Path("/proc/thread-self/net/ip_tables_names").read_text().split())
    except OSError:
        return set()


def forward_policy_drops() -> bool:
    """Whether `iptables-legacy -P FORWARD DROP` is in force; False when that cannot be told."""
    if "filter" not in tables():
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as asking:
            name = b"filter".ljust(32, b"\0")
            info = _get(asking, _GET_INFO, name.ljust(_INFO.size, b"\0"))
            numbers = _INFO.unpack(info)
            policy_at, size = numbers[7 + _FORWARD], numbers[13]
            # struct ipt_get_entries: name, size, padding to 8, the entries
            table = _get(asking, _GET_ENTRIES, struct.pack("=32sI4x", name, size) + bytes(size))[40:]
        (offset,) = _TARGET_OFFSET.unpack_from(table, policy_at + _TARGET_OFFSET_AT)
        return bool(struct.unpack_from("=i", table, policy_at + offset + _VERDICT_AT)[0] == _DROP)
    except (OSError, struct.error):
        return False


def _get(asking: socket.socket, option: int, request: bytes) -> bytes:
    """getsockopt with an argument in the buffer, which Python's own cannot pass."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint32(len(request))
    if libc.getsockopt(asking.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)) != 0:
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw[: length.value]
