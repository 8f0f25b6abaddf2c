"""Programs for another processor: what to say when an image is not for this machine, and who would run it.

The kernel's binfmt_misc hands programs to an interpreter by the first bytes of their file; ELF has the processor at
offset 18 (man 5 elf, e_machine). Source: Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import re
from pathlib import Path

from proa.oci import Platform, host_platform, nearest

BINFMT = Path("/proc/sys/fs/binfmt_misc")

# Architecture as images call it -> (e_machine, little-endian), from elf.h.
_MACHINES = {
    "386": (3, True),
    "amd64": (62, True),
    "arm": (40, True),
    "arm64": (183, True),
    "loong64": (258, True),
    "mips64le": (8, True),
    "ppc64le": (21, True),
    "riscv64": (243, True),
    "s390x": (22, False),
}


def platform_warnings(platform: Platform, *, asked: bool) -> list[str]:
    """What a user should know who creates a container of an image for `platform`; nothing when it runs here.

    asked: the platform was chosen by the user
    """
    if not platform.architecture or nearest([platform]) is not None:
        return []
    out = []
    if not asked:
        out.append(
            f"The requested image's platform ({platform}) does not match the detected host platform "
            f"({host_platform()}) and no specific platform was requested"
        )
    architecture = platform.normalized.architecture
    if emulator(architecture, BINFMT) is None:
        out.append(
            f"No emulator for {architecture} is registered with the kernel (binfmt_misc), so programs of this image "
            "will fail with `exec format error`; Debian's packages qemu-user-static and binfmt-support register them"
        )
    return out


def emulator(architecture: str, registered: Path) -> str | None:
    """The interpreter that the kernel has for ELF programs of an architecture; None without one.

    One registered without the flag F is looked for inside the container, where it hardly is, and does not count.
    """
    machine, little = _MACHINES.get(architecture, (0, True))
    if not machine:
        return None
    # 64-bit where the name does not say 32; the rest of e_ident is zero.
    wide = 1 if architecture in ("386", "arm") else 2
    head = bytearray(b"\x7fELF") + bytes((wide, 1 if little else 2, 1)) + bytes(9)
    order = "little" if little else "big"
    head += (2).to_bytes(2, order) + machine.to_bytes(2, order)  # type: ignore[arg-type]
    try:
        entries = sorted(registered.iterdir())
        if (registered / "status").read_text().strip() != "enabled":
            return None
    except OSError:
        return None
    for entry in entries:
        if entry.name in ("register", "status"):
            continue
        try:
            found = _interpreter(entry.read_text(), bytes(head))
        except (OSError, ValueError):
            continue
        if found:
            return found
    return None


def _interpreter(text: str, head: bytes) -> str | None:
    """The interpreter of one registration if it takes a file that begins with `head`."""
    lines = text.splitlines()
    fields = dict(re.findall(r"^(\w+):? (\S+)$", text, re.MULTILINE))
    if lines[:1] != ["enabled"] or "magic" not in fields or "F" not in fields.get("flags", ""):
        return None
    offset = int(fields.get("offset", "0"))
    magic = bytes.fromhex(fields["magic"])
    mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
    part = head[offset : offset + len(magic)]
    if len(part) < len(magic) or any((a ^ b) & m for a, b, m in zip(part, magic, mask, strict=True)):
        return None
    return fields.get("interpreter")
