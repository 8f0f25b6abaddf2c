"""Every system call number, tried under the default filter: the kernel's answer against the profile's rules."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

import pytest

from proa.linux.process import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUTS,
    PR_SET_NO_NEW_PRIVS,
    prctl,
    unshare,
)
from proa.linux.seccomp import seccomp_set_filter
from proa.runtime import defaults
from proa.runtime.seccomp import compile_filter, default_profile
from proa.runtime.seccomp.syscalls import syscall_numbers

# Bad pointers and fds everywhere: a call that is let through fails by itself or does no harm. These would do harm.
_ENDS_OR_BLOCKS = {
    *(
        [
            "exit",
            "exit_group",
            "pause",
            "rt_sigreturn",
            "rt_sigsuspend",
            "vfork",
            "fork",
            "clone",
            "clone3",
            "kill",
            "tkill",
            "tgkill",
            "setsid",
            "alarm",
        ]
    ),
    *(
        [
            "restart_syscall",
            "select",
            "pselect6",
            "poll",
            "ppoll",
            "sync",
            "close",
            "close_range",
            "brk",
            "munmap",
            "munlockall",
            "mlockall",
        ]
    ),
    *(
        [
            "arch_prctl",
            "set_tid_address",
            "set_robust_list",
            "rseq",
            "vhangup",
            "wait4",
            "waitid",
            "rt_sigtimedwait",
            "shutdown",
            "setitimer",
        ]
    ),
    *(
        [
            "seccomp",
            "userfaultfd",
            "reboot",
            "uretprobe",
            "uprobe",
            "dup2",
            "dup3",
            "futex",
            "mremap",
            "mprotect",
            "mmap",
            "write",
            "writev",
        ]
    ),
    *(["pwrite64", "sched_setscheduler"]),
}
_REFUSED = 999  # an errno the kernel does not have, in place of the profile's EPERM


def _expected() -> dict[str, int | None]:
    """The filter's errno, or None for calls it lets through, of those whose rules have no conditions."""
    profile = default_profile(set(defaults.CAPABILITIES))
    plain = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    conditional = {name for rule in profile["syscalls"] if "args" in rule for name in rule["names"]}
    numbers = syscall_numbers("x86_64")
    newest = max(numbers[name] for name in plain | conditional if name in numbers)
    expected: dict[str, int | None] = {}
    for name, number in numbers.items():
        if name not in _ENDS_OR_BLOCKS and name not in conditional:
            expected[name] = None if name in plain else errno.ENOSYS if number > newest else _REFUSED
    return expected


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64 are tried")
def test_every_call_meets_its_rule() -> None:
    numbers = syscall_numbers("x86_64")
    expected = _expected()
    assert len(expected) > 300
    profile = default_profile(set(defaults.CAPABILITIES)) | {"defaultErrnoRet": _REFUSED}
    program = compile_filter(profile).program
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try_all(program, [numbers[name] for name in sorted(expected)], writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    answers = dict(struct.iter_unpack("=ii", raw))
    wrong = {
        name: answers[numbers[name]]
        for name, refusal in expected.items()
        if (answers[numbers[name]] != refusal if refusal is not None else answers[numbers[name]] == _REFUSED)
    }
    assert not wrong


@pytest.mark.parametrize(
    ("family", "allowed"),
    [(2, True), (16, True), (38, False), (40, False), (38 | 1 << 32, False), (40 | 1 << 32, False), (39, True)],
)
def test_socket_families(family: int, allowed: bool) -> None:
    """CVE-2026-31431 and its way around 64-bit comparison."""
    profile = default_profile(set(defaults.CAPABILITIES)) | {"defaultErrnoRet": _REFUSED}
    program = compile_filter(profile).program
    number = syscall_numbers("x86_64")["socket"]
    pid = os.fork()
    if pid == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            seccomp_set_filter(program)
            libc.syscall(ctypes.c_long(number), ctypes.c_long(family), ctypes.c_long(2), ctypes.c_long(0))
            os._exit(10 if ctypes.get_errno() == _REFUSED else 11)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (11 if allowed else 10)


def _try_all(program: bytes, numbers: list[int], writer: int) -> None:
    """In the child: call every number with arguments that no call can use."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        signal.alarm(20)
        unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp_set_filter(program)
        bad = ctypes.c_long(-1)
        results = b""
        for number in numbers:
            ctypes.set_errno(0)
            libc.syscall(ctypes.c_long(number), bad, bad, bad, bad, bad, bad)
            results += struct.pack("=ii", number, ctypes.get_errno())
        os.write(writer, results)
        os._exit(0)
    finally:
        os._exit(1)
