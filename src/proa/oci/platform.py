"""Platforms: operating system, architecture, variant (image-spec image-index.md, "platform")."""

from __future__ import annotations

import os
import re

import msgspec

from proa.errors import Invalid

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
_PART = re.compile(r"[A-Za-z0-9._-]+")
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a manifest runs on. Field names are the wire's, `os.version` and `os.features` included."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def normalized(self) -> Platform:
        """The same platform with architecture aliases resolved and the usual variant filled in."""
        architecture = _ALIASES.get(self.architecture, self.architecture)
        return Platform(
            os=self.os or "linux",
            architecture=architecture,
            variant=self.variant or _DEFAULT_VARIANT.get(architecture, ""),
        )

    def matches(self, wanted: Platform) -> bool:
        """True when an image for this platform is what `wanted` asks for."""
        mine, theirs = self.normalized, wanted.normalized
        return (mine.os, mine.architecture, mine.variant) == (theirs.os, theirs.architecture, theirs.variant)


def parse_platform(text: str) -> Platform:
    """`os[/arch[/variant]]` as users write it. Raises Invalid."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(p) for p in parts):
        raise Invalid(f"invalid platform {text!r}: want os/arch[/variant], for example linux/amd64")
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(os=parts[0], architecture=host_platform().architecture)
        return Platform(os="linux", architecture=parts[0]).normalized
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def host_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)
