"""Options of the local driver: what a volume lies on, and whose it is at first.

Docker's `type`, `device` and `o` are those of mount(8): a file system that is mounted while the volume is used. `size`,
or `o=size=` without a type, makes a file system of that size in a file. `uid`, `gid` and `mode` are of the volume's
root when it is made; they may stand in `o` too, as Podman has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from proa.errors import Invalid
from proa.linux import mount as m
from proa.runtime.sizes import byte_size

__all__ = ["Backing", "parse_options"]

MIN_SIZE_BYTES = 1 << 20
MAX_ID = (1 << 32) - 2
_NAMES = ("type", "device", "o", "size", "uid", "gid", "mode")
_FLAGS = {
    "ro": m.MS_RDONLY,
    "rw": 0,
    "nosuid": m.MS_NOSUID,
    "nodev": m.MS_NODEV,
    "noexec": m.MS_NOEXEC,
    "noatime": m.MS_NOATIME,
    "nodiratime": m.MS_NODIRATIME,
    "relatime": m.MS_RELATIME,
    "sync": m.MS_SYNCHRONOUS,
    "dirsync": m.MS_DIRSYNC,
    "bind": m.MS_BIND,
    "rbind": m.MS_BIND | m.MS_REC,
    "defaults": 0,
}


class Backing(NamedTuple):
    """What a volume's data lies on.

    fstype, device, flags, data: of mount(2), when it is a file system that exists elsewhere; else fstype is empty.
    size_bytes: of the file system in a file that is made for it; 0 for a directory without a limit.
    uid, gid, mode: of the root when the volume is made; None leaves what comes with it.
    """

    fstype: str = ""
    device: str = ""
    flags: int = 0
    data: str = ""
    size_bytes: int = 0
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None

    @property
    def mounted(self) -> bool:
        """Whether something is to be mounted before the data can be reached."""
        return bool(self.fstype or self.size_bytes)


def parse_options(options: Mapping[str, str]) -> Backing:
    """Read the driver's options. Raises Invalid with Docker's words for an unknown or a missing one."""
    for name in sorted(options):
        if name not in _NAMES:
            raise Invalid(f'invalid option: "{name}"', code="volume-option", subject=name)
    kind, device = options.get("type", ""), options.get("device", "")
    found = {name: options[name] for name in ("size", "uid", "gid", "mode") if name in options}
    flags, rest = 0, []
    for word in filter(None, options.get("o", "").split(",")):
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif not kind and equals and name in ("size", "uid", "gid", "mode"):
            found.setdefault(name, value)
        else:
            rest.append(word)
    if kind and not device:
        raise Invalid('missing required option: "device"', code="volume-option", subject="device")
    if not kind and (device or flags or rest):
        raise Invalid('missing required option: "type"', code="volume-option", subject="type")
    if kind and "size" in found:
        raise Invalid(
            "a volume with a size is a file system of its own: it cannot have a type",
            code="volume-option",
            subject="size",
            hint="for a tmpfs use `o=size=…`",
        )
    return Backing(
        fstype=kind,
        device=device,
        flags=flags,
        data=",".join(rest),
        size_bytes=_size(found["size"]) if "size" in found else 0,
        uid=_number(found, "uid"),
        gid=_number(found, "gid"),
        mode=_mode(found["mode"]) if "mode" in found else None,
    )


def _number(found: Mapping[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_ID):
        raise Invalid(f"invalid {name} of a volume: {text!r} is not a number", code="volume-option", subject=name)
    return int(text)


def _mode(text: str) -> int:
    if not text or set(text) - set("01234567") or int(text, 8) > 0o7777:
        raise Invalid(f"invalid mode of a volume: {text!r} is not octal", code="volume-option", subject="mode")
    return int(text, 8)


def _size(text: str) -> int:
    try:
        size = byte_size(text)
    except Invalid as error:
        raise Invalid(error.message, code="volume-option", subject="size") from None
    if size < MIN_SIZE_BYTES:
        raise Invalid(f"a volume of {text} is too small: the least is 1m", code="volume-option", subject="size")
    return size
