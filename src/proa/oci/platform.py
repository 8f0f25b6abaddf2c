"""Platforms: operating system, architecture, variant (image-spec image-index.md, "platform")."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

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
# What Go's GOARCH knows: one word alone that is none of these names nothing.
_ARCHITECTURES = frozenset(
    [
        "386",
        "amd64",
        "arm",
        "arm64",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mipsle",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
        "wasm",
    ]
)
_PART = re.compile(r"[A-Za-z0-9._-]+")
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}
# What a processor also runs without emulation, in 32-bit mode.
_COMPATIBLE = {"amd64": "386", "arm64": "arm"}


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
        """True when an image for this platform serves one who asked for `wanted`: also an older variant of it does."""
        return self.distance(wanted) is not None

    def distance(self, wanted: Platform, *, compatible: bool = False) -> int | None:
        """How far an image for this platform is from `wanted`: 0 is exactly it, more is worse, None does not serve.

        A processor runs programs for older variants of itself (arm v6 on v7, amd64 v1 on v3), and where `compatible`
        is enough, for its 32-bit mode.
        """
        mine, theirs = self.normalized, wanted.normalized
        if mine.os != theirs.os:
            return None
        if mine.architecture != theirs.architecture:
            if not compatible or _COMPATIBLE.get(theirs.architecture) != mine.architecture:
                return None
            return 50 + (9 - mine._level)
        if mine.variant == theirs.variant:
            return 0
        behind = theirs._level - mine._level
        return behind if behind >= 0 and mine._level else None

    @property
    def _level(self) -> int:
        """The number of a variant such as v7; 0 for another form. No variant of amd64 is its first."""
        variant = self.variant or ("v1" if self.architecture == "amd64" else "")
        return int(variant[1:]) if re.fullmatch(r"v[0-9]", variant) else 0


def nearest(offered: Sequence[Platform | None], wanted: Platform | None = None) -> int | None:
    """Which of `offered` serves `wanted` best, by its index; None when none does. Of equals the first.

    Without `wanted` it is this machine that is to be served, and then its 32-bit mode is enough.
    """
    target = wanted or host_platform()
    found: list[tuple[int, int]] = []
    for index, platform in enumerate(offered):
        far = platform.distance(target, compatible=wanted is None) if platform else None
        if far is not None:
            found.append((far, index))
    return min(found)[1] if found else None


def parse_platform(text: str) -> Platform:
    """`os[/arch[/variant]]` as users write it. Raises Invalid."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(p) for p in parts):
        raise Invalid(f"invalid platform {text!r}: want os/arch[/variant], for example linux/amd64")
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(os=parts[0], architecture=host_platform().architecture)
        found = Platform(os="linux", architecture=parts[0]).normalized
        if found.architecture not in _ARCHITECTURES:
            raise Invalid(
                f'"{text}": unknown operating system or architecture: invalid argument',
                code="platform-invalid",
                hint="write os/arch[/variant], for example linux/amd64",
            )
        return found
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def host_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)
