"""Hierarchies, device rules and limits as data."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest

from proa.errors import Invalid
from proa.linux.bpf import BPF_INSN
from proa.runtime import defaults
from proa.runtime.cgroups.device_rules import DeviceRule, device_program, parse_rules
from proa.runtime.cgroups.hierarchy import parse_hierarchies
from proa.runtime.cgroups.resources import parse_resources
from proa.runtime.cgroups.version2 import weight_of_shares

HYBRID = b"""31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/x /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/with\\040space rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
MEMBERSHIPS = b"9:name=systemd:/\n8:pids:/a\n4:memory:/docker/x/y\n1:cpu,cpuacct:/\n0::/\n"


def test_hybrid_uses_version_one() -> None:
    found = {h.name: h for h in parse_hierarchies(HYBRID, MEMBERSHIPS, systemd=False)}
    assert set(found) == {"cpu,cpuacct", "memory", "pids"}
    assert found["cpu,cpuacct"].controllers == ("cpu", "cpuacct")
    assert found["memory"].own == "/sys/fs/cgroup/memory/y"
    assert found["pids"].mount_point == "/sys/fs/with space"
    assert found["pids"].own == "/sys/fs/with space/a"
    assert "name=systemd" in {h.name for h in parse_hierarchies(HYBRID, MEMBERSHIPS, systemd=True)}


def test_version_two_alone() -> None:
    mountinfo = b"30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    found = parse_hierarchies(mountinfo, b"0::/system.slice/x\n", systemd=True)
    assert [(h.name, h.mount_point, h.own) for h in found] == [("", "/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/x")]
    assert parse_hierarchies(b"", b"0::/\n", systemd=False) == ()


def decide(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run a device program as the kernel does (the instructions used here only)."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    code = list(BPF_INSN.iter_unpack(program))
    position = 0
    while True:
        op, both, offset, value = code[position]
        target, source = both & 15, both >> 4
        position += 1
        match op:
            case 0x61:
                registers[target] = struct.unpack_from("=I", context, offset)[0]
            case 0xBC:
                registers[target] = registers[source] & 0xFFFFFFFF
            case 0x74:
                registers[target] >>= value
            case 0x54:
                registers[target] &= value & 0xFFFFFFFF
            case 0xB4:
                registers[target] = value
            case 0x56:
                position += offset if registers[target] != value & 0xFFFFFFFF else 0
            case 0x16:
                position += offset if registers[target] == value & 0xFFFFFFFF else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(hex(op))


def meaning(rules: list[DeviceRule], kind: str, access: str, major: int, minor: int) -> bool:
    decided = {}
    for rule in rules:
        if rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor):
            decided |= dict.fromkeys(rule.access, rule.allow)
    return all(decided.get(letter, False) for letter in access)


def test_device_program_means_what_the_rules_say() -> None:
    lists: list[list[dict[str, Any]]] = [
        [],
        defaults.device_rules(),
        [{"allow": True, "access": "rwm"}, {"allow": False, "type": "b", "access": "w"}],
        [
            {"allow": True, "type": "c", "major": 1, "access": "r"},
            {"allow": True, "type": "c", "minor": 3, "access": "w"},
        ],
        [
            {"allow": True, "type": "c", "major": 1, "access": "rwm"},
            {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "m"},
        ],
        [{"allow": True, "type": "b", "major": 4294967295, "access": "rwm"}],
    ]
    for raw in lists:
        rules = parse_rules(raw)
        program = device_program(rules)
        cases = itertools.product("bc", (1, 5, 10, 136, 4294967295), (0, 3, 200), range(1, 8))
        for kind, major, minor, bits in cases:
            access = "".join(letter for letter, bit in (("m", 1), ("r", 2), ("w", 4)) if bits & bit)
            got = decide(program, {"b": 1, "c": 2}[kind], bits, major, minor)
            assert bool(got) == meaning(rules, kind, access, major, minor), (raw, kind, major, minor, access)


def test_rule_lines() -> None:
    rules = parse_rules(defaults.device_rules())
    assert rules[0].line() == "a"
    assert "c 136:* rwm" in [rule.line() for rule in rules]
    for bad in (
        {"type": "x"},
        {"access": "q"},
        {"major": "1"},
        {"type": "a", "major": 1},
        {"allow": 1},
        {"access": ["r"]},
    ):
        with pytest.raises(Invalid):
            parse_rules([bad])


def test_empty_device_lists_are_the_default_ones() -> None:
    """GHSA-g54h: no rules must not mean no limits."""
    expected = parse_rules(defaults.device_rules())
    assert parse_resources({}).device_rules() == parse_resources({"devices": []}).device_rules() == expected


@pytest.mark.parametrize(
    ("resources", "kind"),
    [
        ({"memory": {"limit": "1g"}}, Invalid),
        ({"memory": {"limit": -2}}, Invalid),
        ({"memory": {"limit": 1 << 63}}, Invalid),
        ({"memory": {"swappiness": 101}}, Invalid),
        ({"pids": {}}, Invalid),
        ({"unified": {"../x": "1"}}, Invalid),
        ({"network": {"classID": -1}}, Invalid),
        ({"network": {"priorities": [{"name": "eth0 5", "priority": 1}]}}, Invalid),
        ({"cpu": {"realtimeRuntime": "5"}}, Invalid),
        ({"rdma": {"a/b": {}}}, Invalid),
    ],
)
def test_resources_refused(resources: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        parse_resources(resources)


def test_shares_to_weight() -> None:
    assert [weight_of_shares(shares) for shares in (0, 2, 1024, 262144, 1 << 40)] == [1, 1, 100, 10000, 10000]
    weights = [weight_of_shares(shares) for shares in range(2, 5000)]
    assert weights == sorted(weights)
