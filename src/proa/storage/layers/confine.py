"""What the unpack worker and its decoder may still do: as little as their work takes.

The worker keeps the capabilities that files of an image need and sees only the layer's directory; the decoder keeps
nothing but a few system calls.
"""

from __future__ import annotations

import errno
import os
import resource
import sys

from proa.errors import Unsupported
from proa.linux import capability, landlock
from proa.linux.files import close_all_but
from proa.linux.process import PR_SET_NO_NEW_PRIVS, prctl
from proa.linux.seccomp import (
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SOCK_FILTER,
    seccomp_set_filter,
)

__all__ = ["confine_decoder", "confine_worker"]

# Python's own address space is about 100 MiB; the ring and the chunks under way are far below the rest.
_ADDRESS_SPACE = 768 << 20

_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID = 0, 1, 3, 4
_CAP_SYS_ADMIN, _CAP_MKNOD, _CAP_SETFCAP = 21, 27, 31
# SYS_ADMIN only for trusted.overlay.opaque; landlock forbids mounting all the same.
_WORKER_CAPABILITIES = sum(
    1 << number
    for number in (
        _CAP_CHOWN,
        _CAP_DAC_OVERRIDE,
        _CAP_FOWNER,
        _CAP_FSETID,
        _CAP_SYS_ADMIN,
        _CAP_MKNOD,
        _CAP_SETFCAP,
    )
)

# AUDIT_ARCH_*, and by name: read write close exit_group, memory, what the C library and the interpreter do in passing.
_DECODER_CALLS: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        # read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn readv writev
        # sched_yield mremap madvise getpid exit futex clock_gettime exit_group getrandom
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 24, 25, 28, 39, 60, 202, 228, 231, 318),
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 65, 66, 124, 216, 233, 172, 93, 98, 113, 94, 278),
    ),
}

# struct seccomp_data { int nr; u32 arch; … }; opcodes of linux/filter.h
_NR, _ARCH = 0, 4
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06


def confine_worker(target_fd: int, memory_bytes: int) -> None:
    """See nothing but the target directory (and the lower layers, by their fds), and change nothing else.

    memory_bytes: what may be held beside the interpreter. Raises Unsupported where neither chroot nor landlock can do
    it.
    """
    forbid_imports()
    prctl(PR_SET_NO_NEW_PRIVS, 1)  # without it an ordinary user may not restrict itself
    restricted = landlock.writable_only(target_fd)
    os.fchdir(target_fd)
    try:
        os.chroot(b".")
        os.chdir(b"/")
    except PermissionError as error:
        # An ordinary user outside a user namespace: entries cannot leave the directory, and landlock sees to it.
        if not restricted:
            raise Unsupported(
                "cannot confine the unpack worker: neither chroot nor landlock is available",
                code="unpack-confinement",
                hint="run the engine as root or in a user namespace",
            ) from error
    _keep(_WORKER_CAPABILITIES)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE + memory_bytes,) * 2)


def confine_decoder(fds: tuple[int, ...]) -> None:
    """Keep only `fds`, no capability, and the system calls of computing. Called after `confine_worker`."""
    close_all_but(fds, first=0)
    _keep(0)
    calls = _DECODER_CALLS.get(os.uname().machine)
    if calls is not None:
        seccomp_set_filter(_filter(*calls))


def forbid_imports() -> None:
    """Make every further import fail: inside a chroot it would run the image's files."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []


def _keep(mask: int) -> None:
    _, permitted, _ = capability.capget()
    capability.clear_ambient()
    capability.capset(permitted & mask, permitted & mask, 0)


def _filter(arch: int, allowed: tuple[int, ...]) -> bytes:
    """A program that allows the calls of one architecture; others fail with EPERM, other architectures kill."""
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
    ]
    for left, number in zip(range(len(allowed), 0, -1), allowed, strict=True):
        program.append((_JUMP_EQUAL, left, 0, number))
    program.append((_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM))
    program.append((_RETURN, 0, 0, SECCOMP_RET_ALLOW))
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in program)
