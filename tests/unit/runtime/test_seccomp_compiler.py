"""The compiler against a small interpreter of its BPF and a direct reading of the rules."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proa.errors import Invalid, Unsupported
from proa.linux import seccomp as s
from proa.linux.seccomp import SOCK_FILTER
from proa.runtime import defaults
from proa.runtime.seccomp import compile_filter, default_filter, default_profile
from proa.runtime.seccomp.bpf import RET
from proa.runtime.seccomp.compiler import INT_ARGUMENTS, Profile, assemble
from proa.runtime.seccomp.profile import ALWAYS_ALLOWED
from proa.runtime.seccomp.syscalls import AUDIT_ARCH, X32_BIT, syscall_numbers
from proa.runtime.shapes import convert

ALLOW = s.SECCOMP_RET_ALLOW
EPERM = s.SECCOMP_RET_ERRNO | 1
ENOSYS = s.SECCOMP_RET_ERRNO | 38


def interpret(program: bytes, arch: int, number: int, args: tuple[int, ...] = ()) -> int:
    """Run a seccomp program as the kernel does; returns its action."""
    words = [number & 0xFFFFFFFF, arch, 0, 0]
    for argument in (*args, 0, 0, 0, 0, 0, 0)[:6]:
        words += [argument & 0xFFFFFFFF, (argument >> 32) & 0xFFFFFFFF]
    accumulator = 0
    position = 0
    instructions = list(SOCK_FILTER.iter_unpack(program))
    while True:
        code, yes, no, k = instructions[position]
        position += 1
        match code:
            case 0x20:
                accumulator = words[k // 4]
            case 0x54:
                accumulator &= k
            case 0x05:
                position += k
            case 0x06:
                return int(k)
            case 0x15:
                position += yes if accumulator == k else no
            case 0x25:
                position += yes if accumulator > k else no
            case 0x35:
                position += yes if accumulator >= k else no
            case _:
                raise AssertionError(hex(code))


def default() -> bytes:
    return compile_filter(default_profile(set(defaults.CAPABILITIES))).program


def run(program: bytes, name: str, *args: int, arch: str = "x86_64") -> int:
    return interpret(program, AUDIT_ARCH[arch], syscall_numbers(arch)[name], args)


@pytest.mark.parametrize("arch", ["x86_64", "i386", "x32"])
def test_default_profile_by_name(arch: str) -> None:
    program = default()
    assert len(ALWAYS_ALLOWED) == 361
    for name in ALWAYS_ALLOWED & syscall_numbers(arch).keys():
        assert run(program, name, arch=arch) == ALLOW, name
    refused = "keyctl add_key request_key io_uring_setup userfaultfd pivot_root mount umount2 setns unshare bpf"
    refused += " kexec_load swapon init_module reboot move_pages open_by_handle_at quotactl acct settimeofday"
    for name in refused.split():
        assert run(program, name, arch=arch) == EPERM, name
    assert run(program, "clone3", arch=arch) == ENOSYS
    assert run(program, "file_setattr", arch=arch) == ENOSYS


def test_numbers_that_do_not_exist() -> None:
    program = default()
    assert interpret(program, AUDIT_ARCH["x86_64"], 5000) == ENOSYS
    assert interpret(program, AUDIT_ARCH["x86_64"], 400) == EPERM
    assert interpret(program, AUDIT_ARCH["x86_64"], X32_BIT | 5000) == ENOSYS
    assert interpret(program, AUDIT_ARCH["x86_64"], 0xFFFFFFFF) == ENOSYS
    assert interpret(program, AUDIT_ARCH["aarch64"], 0) == s.SECCOMP_RET_KILL_PROCESS


@pytest.mark.parametrize("arch", ["x86_64", "i386", "x32"])
def test_socket_families_are_compared_as_ints(arch: str) -> None:
    program = default()
    for family in range(64):
        for garbage in (0, 1 << 32, 0xFFFFFFFF << 32):
            wanted = EPERM if family in (38, 40) else ALLOW
            assert run(program, "socket", family | garbage, arch=arch) == wanted, (family, garbage)


def test_clone_and_personality() -> None:
    program = default()
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(program, "clone", 17 | flag) == EPERM
        assert run(program, "clone", 17 | flag | 1 << 40) == EPERM
    assert run(program, "clone", 17 | 0x00100000) == ALLOW
    for persona, wanted in (
        (0, ALLOW),
        (8, ALLOW),
        (0xFFFFFFFF, ALLOW),
        ((1 << 64) - 1, ALLOW),
        (0x0040000, EPERM),
        (1, EPERM),
    ):
        assert run(program, "personality", persona) == wanted


def test_capabilities_open_their_calls() -> None:
    names = set(defaults.ALL_CAPABILITIES)
    program = default_filter((1 << len(names)) - 1).program
    for name in (
        "mount",
        "clone3",
        "unshare",
        "bpf",
        "reboot",
        "open_by_handle_at",
        "iopl",
        "init_module",
        "settimeofday",
    ):
        assert run(program, name) == ALLOW, name
    assert run(program, "clone", 17 | 0x20000) == ALLOW
    assert run(program, "keyctl") == EPERM
    assert default_filter(1) is default_filter(1)


def meets(args: list[dict[str, Any]], values: tuple[int, ...], name: str) -> bool:
    def one(argument: dict[str, Any]) -> bool:
        index, value, second = argument["index"], argument["value"], argument["valueTwo"]
        actual = values[index]
        if index in INT_ARGUMENTS.get(name, ()):
            actual &= 0xFFFFFFFF
        match argument["op"]:
            case "SCMP_CMP_EQ":
                return actual == value
            case "SCMP_CMP_NE":
                return actual != value
            case "SCMP_CMP_LT":
                return actual < value
            case "SCMP_CMP_LE":
                return actual <= value
            case "SCMP_CMP_GT":
                return actual > value
            case "SCMP_CMP_GE":
                return actual >= value
            case _:
                return actual & value == second

    results = [one(argument) for argument in args]
    unique = len({argument["index"] for argument in args}) == len(args)
    return all(results) if unique else any(results)


@pytest.mark.parametrize("seed", range(30))
def test_random_profiles_mean_what_they_say(seed: int) -> None:
    rng = random.Random(seed)
    numbers = syscall_numbers("x86_64")
    operators = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]
    interesting = [0, 1, 5, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (1 << 63) + 1, (1 << 64) - 1]
    chosen = rng.sample(sorted(numbers), rng.randint(1, 200))
    rules = []
    for _ in range(rng.randint(1, 40)):
        names = rng.sample(chosen, min(len(chosen), rng.randint(1, 20)))
        rule: dict[str, Any] = {
            "names": names,
            "action": rng.choice(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
        }
        if rule["action"] == "SCMP_ACT_ERRNO":
            rule["errnoRet"] = rng.randint(1, 100)
        if rng.random() < 0.6:
            rule["args"] = [
                {
                    "index": rng.randrange(6),
                    "op": "SCMP_CMP_" + rng.choice(operators),
                    "value": rng.choice([0, 1, 5, 0xFFFFFFFF])
                    if set(names) & INT_ARGUMENTS.keys()
                    else rng.choice(interesting),
                    "valueTwo": rng.choice([0, 1, 5]),
                }
                for _ in range(rng.randint(1, 3))
            ]
        rules.append(rule)
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 77,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    }
    program = compile_filter(profile).program
    actions = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_LOG": s.SECCOMP_RET_LOG}

    def meaning(name: str, values: tuple[int, ...]) -> int:
        mine = [rule for rule in rules if name in rule["names"]]
        for rule in sorted(mine, key=lambda rule: "args" not in rule):
            if "args" not in rule or meets(rule["args"], values, name):
                return actions.get(rule["action"], s.SECCOMP_RET_ERRNO | rule.get("errnoRet", 0))
        return s.SECCOMP_RET_ERRNO | 77

    for name in chosen:
        if not any(name in rule["names"] for rule in rules):
            continue
        for _ in range(10):
            values = tuple(rng.choice([*interesting, rng.getrandbits(64)]) for _ in range(6))
            assert run(program, name, *values) == meaning(name, values), (name, values)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, Invalid),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}, Invalid),
        ({"syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_NOTIFY"}]}, Invalid),
        ({"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/x"}, Invalid),
        ({"flags": ["SECCOMP_FILTER_FLAG_MAGIC"]}, Invalid),
        ({"architectures": ["x86"]}, Invalid),
        ({"syscalls": [{"names": ["read"], "action": "ALLOW"}]}, Invalid),
        ({"syscalls": [{"names": ["read"]}]}, Invalid),
        (
            {
                "syscalls": [
                    _rule := {
                        "names": ["no_such"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 0, "op": "EQ"}],
                    }
                ]
            },
            Invalid,
        ),
        ({"syscalls": [_rule | {"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}, Invalid),
        (
            {
                "syscalls": [
                    {
                        "names": ["socket"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 1 << 33, "op": "SCMP_CMP_EQ"}],
                    }
                ]
            },
            Invalid,
        ),
    ],
)
def test_what_is_not_understood_is_refused(change: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        compile_filter({"defaultAction": "SCMP_ACT_ALLOW"} | change)


def test_unknown_names_are_skipped_and_flags_kept() -> None:
    rule = {"names": ["no_such_call", "read"], "action": "SCMP_ACT_ERRNO"}
    compiled = compile_filter(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "flags": ["SECCOMP_FILTER_FLAG_LOG"]}
    )
    assert compiled.flags == s.SECCOMP_FILTER_FLAG_LOG
    assert run(compiled.program, "read") == EPERM
    assert interpret(compiled.program, AUDIT_ARCH["x86_64"], 5000) == ALLOW
    assert compile_filter({"defaultAction": "SCMP_ACT_ALLOW"}).flags == s.SECCOMP_FILTER_FLAG_SPEC_ALLOW


def test_far_jumps_and_the_limit() -> None:
    names = sorted(syscall_numbers("x86_64").keys() - INT_ARGUMENTS.keys())
    args = [{"index": index, "value": 1 << 40, "op": "SCMP_CMP_GE"} for index in range(3)]
    rules = [{"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": args} for name in names[::2][:120]]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    program = compile_filter(profile).program
    assert len(program) // 8 > 1000
    for name in names[::2][:120]:
        assert run(program, name, 1 << 40, 1 << 41, 1 << 63) == s.SECCOMP_RET_ERRNO | 2
        assert run(program, name, 1, 2, 3) == ALLOW
    many = [
        rule | {"args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}
        for rule in rules[:100]
        for value in range(20)
    ]
    with pytest.raises(Unsupported):
        compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})


def test_ends_are_shared() -> None:
    """Every start pays for every instruction, so a range of calls is one jump and no end of its own."""
    codes = [code for code, *_ in SOCK_FILTER.iter_unpack(default())]
    assert codes.count(RET) < 12
    assert len(codes) < 400


def test_aarch64() -> None:
    profile = convert(default_profile(set(defaults.CAPABILITIES), "aarch64"), Profile)
    program = assemble(profile, "aarch64")
    assert run(program, "openat", arch="aarch64") == ALLOW
    assert run(program, "mount", arch="aarch64") == EPERM
    assert run(program, "clone3", arch="aarch64") == ENOSYS
    with pytest.raises(Unsupported):
        assemble(profile, "riscv64")


def test_tables_agree_where_they_must() -> None:
    x86, i386, x32, arm = (syscall_numbers(arch) for arch in ("x86_64", "i386", "x32", "aarch64"))
    assert (x86["read"], x86["clone3"], x86["execveat"]) == (0, 435, 322)
    assert (i386["socketcall"], i386["clone3"], i386["exit"]) == (102, 435, 1)
    assert (x32["read"], x32["execve"]) == (X32_BIT, X32_BIT | 520)
    assert (arm["openat"], arm["clone"], arm["mseal"]) == (56, 220, 462)
    for table in (x86, i386, arm):
        assert len(set(table.values())) == len(table)
        assert all(
            table[name] == x86[name] for name in table if table[name] >= 424 and name in x86 and x86[name] >= 424
        )
