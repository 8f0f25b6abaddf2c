"""Device rules (OCI `linux.resources.devices`) as lines for version 1 and as a BPF program for version 2.

Rules apply in order, the last one that says something about an access decides it; nothing said means denied.
"""

from __future__ import annotations

from proa.errors import Invalid
from proa.linux.bpf import BPF_INSN
from proa.linux.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# include/uapi/linux/bpf.h: BPF_DEVCG_*
_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPES = {"b": 1, "c": 2}


class DeviceRule(NamedTuple):
    """One rule; `kind` is a, b or c; None is any number."""

    allow: bool
    kind: str
    major: int | None
    minor: int | None
    access: str

    def line(self) -> str:
        """As devices.allow and devices.deny take it."""
        if self.kind == "a":
            return "a"
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.kind} {major}:{minor} {self.access}"


def parse_rules(rules: Sequence[Mapping[str, Any]]) -> list[DeviceRule]:
    """Check OCI rules. Raises Invalid."""
    parsed = []
    for rule in rules:
        kind = rule.get("type") or "a"
        access = rule.get("access") or "rwm"
        numbers = [None if number in (None, -1) else number for number in (rule.get("major"), rule.get("minor"))]
        valid = (
            kind in ("a", "b", "c")
            and isinstance(access, str)
            and set(access) <= _ACCESS.keys()
            and all(number is None or (isinstance(number, int) and 0 <= number < 1 << 32) for number in numbers)
            and isinstance(rule.get("allow", False), bool)
        )
        # Version 1 knows "all" only as all devices and all accesses.
        if not valid or (kind == "a" and (numbers != [None, None] or set(access) != set(_ACCESS))):
            raise Invalid(f"device rule {dict(rule)} is not valid", code="invalid-config")
        parsed.append(DeviceRule(rule.get("allow", False), kind, numbers[0], numbers[1], access))
    return parsed


def device_program(rules: Sequence[DeviceRule]) -> bytes:
    """The BPF_PROG_TYPE_CGROUP_DEVICE program for rules, as packed bpf_insn records.

    Backwards through the rules: allowed accesses are struck from what is asked until none is left; a denied one ends.
    r2 device type, r3 accesses not decided yet, r4 major, r5 minor.
    """
    code: list[tuple[int, int, int, int, int]] = [
        (0x61, 2, 1, 0, 0),  # r2 = ctx->access_type
        (0xBC, 3, 2, 0, 0),  # w3 = w2
        (0x74, 3, 0, 0, 16),  # w3 >>= 16
        (0x54, 2, 0, 0, 0xFFFF),  # w2 &= 0xffff
        (0x61, 4, 1, 4, 0),  # r4 = ctx->major
        (0x61, 5, 1, 8, 0),  # r5 = ctx->minor
    ]
    for rule in reversed(rules):
        access = sum(_ACCESS[letter] for letter in set(rule.access))
        body: list[tuple[int, int, int, int, int]]
        if rule.allow:
            body = [
                (0x54, 3, 0, 0, ~access & 0x7FFFFFFF),  # w3 &= ~access
                (0x56, 3, 0, 2, 0),  # if w3 != 0 skip
                (0xB4, 0, 0, 0, 1),
                (0x95, 0, 0, 0, 0),  # return 1
            ]
        else:
            body = [
                (0xBC, 1, 3, 0, 0),  # w1 = w3
                (0x54, 1, 0, 0, access),  # w1 &= access
                (0x16, 1, 0, 2, 0),  # if w1 == 0 skip
                (0xB4, 0, 0, 0, 0),
                (0x95, 0, 0, 0, 0),  # return 0
            ]
        tests = []
        if rule.kind != "a":
            tests.append((2, _TYPES[rule.kind]))
        if rule.major is not None:
            tests.append((4, rule.major))
        if rule.minor is not None:
            tests.append((5, rule.minor))
        for index, (register, value) in enumerate(tests):
            skip = len(tests) - index - 1 + len(body)
            code.append((0x56, register, 0, skip, value if value < 1 << 31 else value - (1 << 32)))  # if != next rule
        code += body
    code += [(0xB4, 0, 0, 0, 0), (0x95, 0, 0, 0, 0)]
    return b"".join(BPF_INSN.pack(op, dst | src << 4, offset, value) for op, dst, src, offset, value in code)
