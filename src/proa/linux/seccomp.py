"""seccomp(2): attach a BPF program that filters this process's system calls."""

from __future__ import annotations

import struct

from proa.linux._libc import addressof, buffer, fail, syscall

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2

SECCOMP_FILTER_FLAG_TSYNC = 0x1
SECCOMP_FILTER_FLAG_LOG = 0x2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 0x4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000

BPF_MAXINSNS = 4096
# struct sock_filter { u16 code; u8 jt, jf; u32 k; }
SOCK_FILTER = struct.Struct("=HBBI")
# struct sock_fprog { u16 len; struct sock_filter *filter; }
SOCK_FPROG = struct.Struct("@HP")

_seccomp = syscall("seccomp")


def seccomp_set_filter(program: bytes, flags: int = 0) -> int:
    """Attach `program` (packed sock_filter records) to this thread and what it starts.

    Returns the listener's fd, close-on-exec, with SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0.
    Needs no_new_privs or CAP_SYS_ADMIN; raises OSError(EINVAL) for a program the kernel's verifier refuses.
    """
    memory = buffer(program)
    fprog = SOCK_FPROG.pack(len(program) // SOCK_FILTER.size, addressof(memory))
    result = _seccomp(SECCOMP_SET_MODE_FILTER, flags, fprog)
    if result < 0:
        fail("seccomp")
    return result


def action_available(action: int) -> bool:
    """Whether this kernel knows a SECCOMP_RET_* action."""
    return _seccomp(SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", action)) == 0
