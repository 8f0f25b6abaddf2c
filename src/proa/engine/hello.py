"""The built-in `hello` image: one static ELF program that this module writes, no compiler involved.

It exists so that `proa run hello` shows the whole path on a machine that reaches no registry.
Sources: System V ABI gABI 4.1 "ELF header" and "program header"; syscall(2) calling conventions.
"""

from __future__ import annotations

import io
import struct
import tarfile

from proa.errors import Unsupported

NAME = "hello"
TEXT = b"""Hello from proa!

This message comes from a container: its own process tree, network, file system and
limits, on this machine's kernel. What happened: the command asked the engine, the engine
took the built-in image `hello`, put a writable layer on it, and a monitor started the
program in it.

Try next:
  proa import rootfs.tar mine && proa run -it mine sh
  proa pull REGISTRY/IMAGE
  proa --help
"""

_BASE = 0x400000
_HEADERS = 64 + 56  # ELF header and one program header


def _code_amd64(length: int) -> bytes:
    """write(1, text, length); exit(0). The text follows the code."""
    head = b"\xb8\x01\x00\x00\x00" + b"\xbf\x01\x00\x00\x00"  # mov eax,1 (write); mov edi,1 (stdout)
    tail = b"\xba" + struct.pack("<I", length) + b"\x0f\x05"  # mov edx,length; syscall
    tail += b"\xb8\x3c\x00\x00\x00" + b"\x31\xff" + b"\x0f\x05"  # mov eax,60 (exit); xor edi,edi; syscall
    return head + b"\x48\x8d\x35" + struct.pack("<i", len(tail)) + tail  # lea rsi,[rip+tail]


def _code_arm64(length: int) -> bytes:
    """The same for aarch64: eight instructions of four bytes, then the text."""
    words = [
        0xD2800020,  # movz x0,#1
        0x10000001 | ((32 - 4) >> 2) << 5,  # adr x1,text (28 bytes on)
        0xD2800002 | length << 5,  # movz x2,#length
        0xD2800808,  # movz x8,#64 (write)
        0xD4000001,  # svc #0
        0xD2800000,  # movz x0,#0
        0xD2800BA8,  # movz x8,#93 (exit)
        0xD4000001,  # svc #0
    ]
    return struct.pack("<8I", *words)


_MACHINES = {"amd64": (62, _code_amd64), "arm64": (183, _code_arm64)}


def hello_elf(architecture: str, text: bytes = TEXT) -> bytes:
    """A static executable that prints `text` and exits 0. Raises Unsupported for an unknown architecture."""
    if architecture not in _MACHINES:
        raise Unsupported(f"the built-in image has no program for {architecture}", code="hello-architecture")
    machine, code = _MACHINES[architecture]
    body = code(len(text)) + text
    size = _HEADERS + len(body)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, read and execute
    return header + segment + body


def hello_layer(architecture: str) -> bytes:
    """The image's one layer: a tar with `/hello`. The same bytes every time."""
    out = io.BytesIO()
    elf = hello_elf(architecture)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("hello")
        entry.size, entry.mode = len(elf), 0o755
        tar.addfile(entry, io.BytesIO(elf))
    return out.getvalue()
