"""OCI `linux.seccomp` -> a BPF program (runtime-spec config-linux.md, seccomp(2)).

Differences from libseccomp, on purpose: arguments that the kernel takes as 32-bit values are compared as such, so
that `socket(40 | 1 << 32)` is no way around a rule on 40; calls newer than any the profile names get ENOSYS, so that
programs fall back to older ones; numbers with equal fate are found by binary search over ranges.
"""

from __future__ import annotations

from marshal import dumps

from proa.errors import Invalid, Unsupported
from proa.linux import seccomp as s
from proa.linux._libc import MACHINE
from proa.linux.tuples import NamedTuple
from proa.runtime.seccomp import bpf
from proa.runtime.seccomp.syscalls import AUDIT_ARCH, X32_BIT, syscall_numbers
from proa.runtime.shapes import Mismatch, Shape, convert, field, integer, listed, optional, shaped, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Condition = tuple[int, str, int, int, bool]  # index, operator, value, second value, whether 32 bits
    Fate = tuple[tuple[tuple[tuple[Condition, ...], int], ...], int]  # ((conditions, action) in order, else action)

_WORD = integer(0, (1 << 16) - 1)
_TEXTS = listed(text)


class Argument(Shape):
    """A condition on one argument."""

    index: int = field(integer(0, 5))
    value: int = field(integer())
    op: str = field(text)
    value_two: int = field(integer(), 0)


class Rule(Shape):
    """What happens to some calls, if their arguments meet all conditions."""

    names: Sequence[str] = field(_TEXTS)
    action: str = field(text)
    errno_ret: int | None = field(optional(_WORD), None)
    args: Sequence[Argument] = field(listed(shaped(Argument)), ())


class Profile(Shape):
    """A whole filter."""

    default_action: str = field(text)
    default_errno_ret: int | None = field(optional(_WORD), None)
    architectures: Sequence[str] = field(_TEXTS, ())
    flags: Sequence[str] | None = field(optional(_TEXTS), None)
    listener_path: str = field(text, "")
    listener_metadata: str = field(text, "")
    syscalls: Sequence[Rule] = field(listed(shaped(Rule)), ())


class CompiledFilter(NamedTuple):
    """A program ready for seccomp(2), with its flags."""

    program: bytes
    flags: int


ACTIONS = {
    "SCMP_ACT_KILL": s.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": s.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": s.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": s.SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": s.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": s.SECCOMP_RET_TRACE,
    "SCMP_ACT_LOG": s.SECCOMP_RET_LOG,
    "SCMP_ACT_ALLOW": s.SECCOMP_RET_ALLOW,
    "SCMP_ACT_NOTIFY": s.SECCOMP_RET_USER_NOTIF,
}
_WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_REFUSING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS")
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # the process that loads the filter has one thread
    "SECCOMP_FILTER_FLAG_LOG": s.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": s.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": s.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
}
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_EPERM, _ENOSYS = 1, 38

# Arguments the kernel takes as 32-bit values, of calls that filters look into (include/linux/syscalls.h).
INT_ARGUMENTS: dict[str, frozenset[int]] = {
    name: frozenset(indexes)
    for name, indexes in {
        "socket": (0, 1, 2),
        "socketpair": (0, 1, 2),
        "setsockopt": (0, 1, 2, 4),
        "getsockopt": (0, 1, 2),
        "personality": (0,),
        "clone": (0,),  # as clone takes the low half only
        "unshare": (0,),  # an unsigned long of which no flag is above bit 31
        "setns": (0, 1),
        "ioctl": (0, 1),
        "fcntl": (0, 1),
        "prctl": (0,),
        "keyctl": (0,),
        "bpf": (0, 2),
        "seccomp": (0, 1),
        "kill": (0, 1),
        "tkill": (0, 1),
        "tgkill": (0, 1, 2),
        "open": (1, 2),
        "openat": (0, 2, 3),
        "chmod": (1,),
        "fchmod": (0, 1),
        "fchmodat": (0, 2),
        "mknod": (1, 2),
        "mknodat": (0, 2, 3),
        "quotactl": (0, 2),
        "sched_setscheduler": (0, 1),
        "setpriority": (0, 1, 2),
        "memfd_create": (1,),
        "io_uring_setup": (0,),
        "madvise": (2,),
    }.items()
}

# Compiled profiles by what they were made of.
_compiled: dict[bytes, CompiledFilter] = {}
_MOST = 64


def compile_filter(profile: Mapping[str, Any]) -> CompiledFilter:
    """Compile a profile; the result is cached by content.

    Raises Invalid for unknown actions, operators, architectures and flags (a filter that means less than it says would
    be worse than none). Names this machine does not know are skipped.
    """
    key = dumps({**profile}, 2)  # a version without references, which equal profiles may have in different places
    found = _compiled.get(key)
    if found is None:
        if len(_compiled) >= _MOST:
            _compiled.clear()
        found = _compiled[key] = _compile(profile)
    return found


def _compile(document: Mapping[str, Any]) -> CompiledFilter:
    try:
        profile = convert({**document}, Profile)
    except Mismatch as error:
        raise Invalid(f"the seccomp profile is not valid: {error}", code="invalid-seccomp") from None
    flags = s.SECCOMP_FILTER_FLAG_SPEC_ALLOW if profile.flags is None else 0
    for flag in profile.flags or ():
        if flag not in FLAGS:
            raise Invalid(f"unknown seccomp flag `{flag}`", code="invalid-seccomp", subject=flag)
        flags |= FLAGS[flag]
    flags |= _listener_flags(profile)
    return CompiledFilter(assemble(profile, MACHINE), flags)


def _listener_flags(profile: Profile) -> int:
    """Whether the filter has a listener. Raises Invalid for a profile whose notifications nobody could answer."""
    asked = [rule for rule in profile.syscalls if rule.action == "SCMP_ACT_NOTIFY"]
    if profile.default_action == "SCMP_ACT_NOTIFY" or any("write" in rule.names for rule in asked):
        # The starting process tells of the listener by `write`.
        text = "a seccomp profile cannot notify of write, nor of everything that it does not name"
        raise Invalid(text, code="invalid-seccomp", subject="SCMP_ACT_NOTIFY")
    if not asked:
        return 0
    if not profile.listener_path:
        raise Invalid("SCMP_ACT_NOTIFY needs listenerPath", code="invalid-seccomp", subject="SCMP_ACT_NOTIFY")
    return s.SECCOMP_FILTER_FLAG_NEW_LISTENER


def assemble(profile: Profile, machine: str) -> bytes:
    """The program for the profile's architectures as far as `machine` (uname -m) can run them."""
    native = machine if machine in AUDIT_ARCH else ""
    if not native:
        raise Unsupported(f"seccomp filters for {machine} are not supported", code="seccomp-architecture")
    possible = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64",)}[native]
    wanted = {native}
    for name in profile.architectures:
        if not name.startswith("SCMP_ARCH_"):
            raise Invalid(f"unknown architecture `{name}` in the seccomp profile", code="invalid-seccomp", subject=name)
        if ARCHITECTURES.get(name) in possible:
            wanted.add(ARCHITECTURES[name])
    asm = bpf.Assembler()
    asm.load(bpf.ARCH)
    for audit in dict.fromkeys(AUDIT_ARCH[arch] for arch in possible if arch in wanted):
        here, after = asm.label(), asm.label()
        asm.jump(bpf.JEQ, audit, here, after)
        asm.place(here)
        asm.load(bpf.NR)
        if machine == "x86_64" and audit == AUDIT_ARCH["x86_64"]:
            x32, x64 = asm.label(), asm.label()
            asm.jump(bpf.JGE, X32_BIT, x32, x64)
            asm.place(x64)
            _emit_table(asm, _table(profile, "x86_64"))
            asm.place(x32)
            if "x32" in wanted:
                _emit_table(asm, _table(profile, "x32"))
            else:
                asm.give(_action(profile.default_action, profile.default_errno_ret))
        else:
            arch = next(arch for arch in possible if AUDIT_ARCH[arch] == audit)
            _emit_table(asm, _table(profile, arch))
        asm.place(after)
    asm.give(s.SECCOMP_RET_KILL_PROCESS)
    return asm.assemble()


def _action(action: str, number: int | None) -> int:
    if action not in ACTIONS:
        raise Invalid(f"unknown seccomp action `{action}`", code="invalid-seccomp", subject=action)
    return ACTIONS[action] | ((_EPERM if number is None else number) if action in _WITH_NUMBER else 0)


def _table(profile: Profile, arch: str) -> list[tuple[int, Fate]]:
    """Ranges of call numbers with one fate: (first number, fate), ascending, from 0 to the end of all numbers."""
    numbers = syscall_numbers(arch)
    default = _action(profile.default_action, profile.default_errno_ret)
    conditional: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    otherwise: dict[int, int] = {}
    for rule in profile.syscalls:
        action = _action(rule.action, rule.errno_ret)
        for name in rule.names:
            conditions = [_condition(argument, name, arch) for argument in rule.args]
            number = numbers.get(name)
            if number is None:
                continue
            if not conditions:
                otherwise.setdefault(number, action)
            elif len({condition[0] for condition in conditions}) == len(conditions):
                conditional.setdefault(number, []).append((tuple(conditions), action))
            else:  # as runc: several conditions on one argument are alternatives
                conditional.setdefault(number, []).extend(((condition,), action) for condition in conditions)
    known = sorted(otherwise.keys() | conditional.keys())
    future = s.SECCOMP_RET_ERRNO | _ENOSYS if known and profile.default_action in _REFUSING else default
    # x32 grows below its own block of old numbers, like the others.
    bottom, block = (X32_BIT, X32_BIT + 512) if arch == "x32" else (0, 0)
    newest = max((number for number in known if not block or number < block), default=-1)
    ranges: list[tuple[int, Fate]] = [(bottom, ((), default))]
    for number in range(bottom, known[-1] + 1) if known else ():
        unnamed = future if newest < number < block else default
        fate: Fate = (tuple(conditional.get(number, ())), otherwise.get(number, unnamed))
        if fate != ranges[-1][1]:
            if ranges[-1][0] == number:
                ranges.pop()
            ranges.append((number, fate))
    if known:
        ranges.append((known[-1] + 1, ((), future)))
    return ranges


def _condition(argument: Argument, name: str, arch: str) -> Condition:
    operator = argument.op.removeprefix("SCMP_CMP_")
    if operator not in OPERATORS or not argument.op.startswith("SCMP_CMP_"):
        raise Invalid(f"unknown seccomp operator `{argument.op}`", code="invalid-seccomp", subject=name)
    short = arch == "i386" or argument.index in INT_ARGUMENTS.get(name, ())
    values = []
    for value in (argument.value, argument.value_two):
        word = value & ((1 << 64) - 1)
        if not -(1 << 63) <= value < 1 << 64:
            raise Invalid(f"seccomp value {value} has more than 64 bits", code="invalid-seccomp", subject=name)
        # Negative ints may be written sign-extended.
        if short and arch != "i386" and (word >> 32) not in (0, 0xFFFFFFFF):
            text = f"argument {argument.index} of {name} has 32 bits, the seccomp profile compares it with {value}"
            raise Invalid(text, code="invalid-seccomp", subject=name)
        values.append(word & 0xFFFFFFFF if short else word)
    return argument.index, operator, values[0], values[1], short


def _emit_table(asm: bpf.Assembler, ranges: Sequence[tuple[int, Fate]]) -> None:
    """Binary search for the range of the loaded number."""
    if len(ranges) == 1:
        _emit_fate(asm, ranges[0][1])
        return
    middle = len(ranges) // 2
    upper, lower = asm.label(), asm.label()
    asm.jump(bpf.JGE, ranges[middle][0], upper, lower)
    asm.place(lower)
    _emit_table(asm, ranges[:middle])
    asm.place(upper)
    _emit_table(asm, ranges[middle:])


def _emit_fate(asm: bpf.Assembler, fate: Fate) -> None:
    rules, otherwise = fate
    for conditions, action in rules:
        failed = asm.label()
        for condition in conditions:
            met = asm.label()
            _emit_condition(asm, condition, met, failed)
            asm.place(met)
        asm.give(action)
        asm.place(failed)
    asm.give(otherwise)


_NEGATED = {"NE": "EQ", "LT": "GE", "LE": "GT"}


def _emit_condition(asm: bpf.Assembler, condition: Condition, met: str, failed: str) -> None:
    index, operator, value, second, short = condition
    if operator in _NEGATED:
        operator, met, failed = _NEGATED[operator], failed, met
    if operator == "MASKED_EQ":
        mask, value = value, second
    high, low = value >> 32, value & 0xFFFFFFFF
    if not short:
        same = asm.label()
        asm.load(bpf.arg_high(index))
        if operator == "MASKED_EQ":
            asm.mask(mask >> 32)
        elif operator in ("GT", "GE"):
            not_above = asm.label()
            asm.jump(bpf.JGT, high, met, not_above)
            asm.place(not_above)
        asm.jump(bpf.JEQ, high, same, failed)
        asm.place(same)
    asm.load(bpf.arg_low(index))
    if operator == "MASKED_EQ":
        asm.mask(mask & 0xFFFFFFFF)
    code = {"GT": bpf.JGT, "GE": bpf.JGE}.get(operator, bpf.JEQ)
    asm.jump(code, low, met, failed)
