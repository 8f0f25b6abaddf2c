"""Static programs of a few instructions, for what no shell command shows (x86-64)."""

from __future__ import annotations

import struct

EXIT = b"\xb8\x3c\x00\x00\x00\x0f\x05"  # mov eax,60; syscall: exit(edi)
# geteuid(); exit(the result's low 8 bits): 0 for root, 232 for user 1000
EXIT_WITH_EUID = b"\xb8\x6b\x00\x00\x00\x0f\x05" + b"\x89\xc7" + EXIT


def elf(code: bytes) -> bytes:
    """An executable that runs `code` (ELF64, one segment)."""
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code
