"""Docker's seccomp profile format to the runtime-spec's: conditions are decided here, for this container and host.

Docker's JSON adds `archMap` and, per rule, `includes`/`excludes` by capability, architecture and kernel version
(docs.docker.com "Seccomp security profiles for Docker"; runtime-spec config-linux.md "Seccomp").
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from proa.errors import Invalid

_ARCHITECTURES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}


class _Condition(msgspec.Struct):
    caps: list[str] = []
    arches: list[str] = []
    min_kernel: str = msgspec.field(default="", name="minKernel")


class _Rule(msgspec.Struct):
    action: str
    names: list[str] = []
    name: str = ""
    args: list[dict[str, Any]] | None = None
    errno: int | None = msgspec.field(default=None, name="errnoRet")
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _Architecture(msgspec.Struct):
    architecture: str
    sub: list[str] | None = msgspec.field(default=None, name="subArchitectures")


class _Profile(msgspec.Struct):
    default_action: str = msgspec.field(name="defaultAction")
    default_errno: int | None = msgspec.field(default=None, name="defaultErrnoRet")
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = msgspec.field(default=None, name="archMap")
    syscalls: list[_Rule] | None = None
    flags: list[str] | None = None


def from_docker_profile(document: Any, capabilities: Sequence[str]) -> dict[str, Any]:
    """A runtime-spec `linux.seccomp` object for a container with these capabilities. Raises Invalid."""
    try:
        profile = msgspec.convert(document, _Profile)
    except msgspec.ValidationError as e:
        raise Invalid(f"Decoding seccomp profile failed: {e}", code="seccomp-profile") from None
    out: dict[str, Any] = {"defaultAction": profile.default_action}
    if profile.default_errno is not None:
        out["defaultErrnoRet"] = profile.default_errno
    native = _ARCHITECTURES.get(os.uname().machine, ("", ""))[0]
    architectures = list(profile.architectures or [])
    for entry in profile.arch_map or []:
        if entry.architecture == native:
            architectures += [entry.architecture, *(entry.sub or [])]
    if architectures:
        out["architectures"] = architectures
    if profile.flags:
        out["flags"] = profile.flags
    out["syscalls"] = [_rule(r) for r in profile.syscalls or [] if _applies(r, capabilities)]
    return out


def _rule(rule: _Rule) -> dict[str, Any]:
    out: dict[str, Any] = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.args:
        out["args"] = rule.args
    if rule.errno is not None:
        out["errnoRet"] = rule.errno
    return out


def _applies(rule: _Rule, capabilities: Sequence[str]) -> bool:
    machine = _ARCHITECTURES.get(os.uname().machine, ("", ""))[1]
    wanted, unwanted = rule.includes or _Condition(), rule.excludes or _Condition()
    if wanted.arches and machine not in wanted.arches:
        return False
    if any(cap not in capabilities for cap in wanted.caps):
        return False
    if wanted.min_kernel and _version(os.uname().release) < _version(wanted.min_kernel):
        return False
    if unwanted.arches and machine in unwanted.arches:
        return False
    if any(cap in capabilities for cap in unwanted.caps):
        return False
    return not (unwanted.min_kernel and _version(os.uname().release) >= _version(unwanted.min_kernel))


def _version(text: str) -> tuple[int, int]:
    parts = [p for p in text.replace("-", ".").split(".")[:2] if p.isascii() and p.isdigit()]
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 else (0, 0)
