"""Processes: clone3(2), namespaces, pidfds, prctl(2), names, personality."""

from __future__ import annotations

import os
import struct
import sys

from proa.linux._libc import Path, addressof, buffer, c_char_p, call, fail, path_bytes, syscall, syscall_holding_gil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

SECBIT_NO_SETUID_FIXUP = 1 << 2

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_CHILD_SUBREAPER = 36
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

P_ALL = 0
P_PID = 1
P_PIDFD = 3

# linux/sched.h: the task flags in /proc/PID/stat.
PF_EXITING = 0x4

PIDFD_NONBLOCK = os.O_NONBLOCK

# struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
CLONE_ARGS = struct.Struct("=11Q")
# siginfo_t of waitid, as far as it is filled: si_signo si_errno si_code pad si_pid si_uid si_status
SIGINFO = struct.Struct("=iiiiiIi100x")

_clone3 = syscall_holding_gil("clone3")
_setns = call("setns")
_unshare = call("unshare")
_prctl = call("prctl")
_personality = call("personality")
_setfsuid = call("setfsuid")
_setfsgid = call("setfsgid")
_sethostname = call("sethostname")
_setdomainname = call("setdomainname")
_pidfd_open = syscall("pidfd_open")
_pidfd_send_signal = syscall("pidfd_send_signal")
_pidfd_getfd = syscall("pidfd_getfd")
_waitid = syscall("waitid")
_execveat = syscall_holding_gil("execveat")  # `vfork`


def clone3(flags: int, *, exit_signal: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Copy this process like fork(2), into new namespaces; returns (pid, pidfd), and (0, -1) in the child.

    Only for single-threaded processes: no fork hooks run, and the child may touch only what was loaded before. With
    `cgroup_fd` (an O_PATH or read-only fd of a cgroup v2 directory) the child is born in that cgroup. The interpreter
    lock is not released around the call. The pidfd is close-on-exec.
    """
    pidfd = buffer(4)
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    args = CLONE_ARGS.pack(flags | CLONE_PIDFD, addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup_fd or 0)
    pid = _clone3(args, CLONE_ARGS.size)
    if pid < 0:
        fail("clone3")
    if pid == 0:
        return 0, -1
    return pid, int.from_bytes(pidfd.raw, sys.byteorder)


def setns(fd: int, kinds: int) -> None:
    """setns(2) with a namespace fd, or with a pidfd and any set of CLONE_NEW* kinds."""
    if _setns(fd, kinds) < 0:
        fail("setns")


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _unshare(flags) < 0:
        fail("unshare")


def pidfd_open(pid: int, flags: int = 0) -> int:
    """pidfd_open(2); readable when the process ends; close-on-exec."""
    fd = _pidfd_open(pid, flags)
    if fd < 0:
        fail("pidfd_open")
    return fd


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2): a signal that cannot reach a later owner of the pid. Raises ProcessLookupError."""
    if _pidfd_send_signal(pidfd, signal, None, 0) < 0:
        fail("pidfd_send_signal")


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    """pidfd_getfd(2): a copy of another process's fd; close-on-exec."""
    fd = _pidfd_getfd(pidfd, target_fd, 0)
    if fd < 0:
        fail("pidfd_getfd")
    return fd


def waitid(kind: int, identity: int, options: int) -> tuple[int, int, int] | None:
    """waitid(2): (pid, si_code, status), or None when WNOHANG found nothing. `identity` is a pid or pidfd by `kind`."""
    info = buffer(SIGINFO.size)
    if _waitid(kind, identity, info, options, None) < 0:
        fail("waitid")
    _signo, _errno, code, _pad, pid, _uid, status = SIGINFO.unpack(info.raw)
    return (pid, code, status) if pid else None


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) for options with integer arguments."""
    result = _prctl(option, arg2, arg3, arg4, arg5)
    if result < 0:
        fail(f"prctl({option})")
    return result


def set_name(name: str) -> None:
    """Set this thread's name as ps shows it (cut to 15 bytes)."""
    raw = buffer(name.encode()[:15] + b"\0")
    prctl(PR_SET_NAME, addressof(raw))


def personality(persona: int) -> int:
    """personality(2); returns the previous one."""
    previous = _personality(persona)
    if previous < 0:
        fail("personality")
    return previous


def setfsids(uid: int, gid: int) -> None:
    """setfsuid(2) and setfsgid(2): whom the file system takes this thread for. Raises PermissionError."""
    # Neither call tells of failure; the second one of each pair tells what is in force.
    for function, wanted in ((_setfsgid, gid), (_setfsuid, uid)):
        function(wanted)
        if function(0xFFFFFFFF) & 0xFFFFFFFF != wanted:
            raise PermissionError(1, f"setfsids: cannot become {uid}:{gid}")


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    if _sethostname(name, len(name)) < 0:
        fail("sethostname")


def setdomainname(name: bytes) -> None:
    """setdomainname(2)."""
    if _setdomainname(name, len(name)) < 0:
        fail("setdomainname")


def execveat(dir_fd: int, path: Path, argv: Sequence[bytes], env: Sequence[bytes], flags: int = 0) -> None:
    """execveat(2); an empty path with AT_EMPTY_PATH runs the file `dir_fd` itself. Returns only by raising."""
    argv_array = (c_char_p * (len(argv) + 1))(*argv, None)
    env_array = (c_char_p * (len(env) + 1))(*env, None)
    _execveat(dir_fd, path_bytes(path), argv_array, env_array, flags)
    fail("execveat", path)


def in_user_namespace() -> bool:
    """Whether this process is in another user namespace than the machine's first."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]


def has_one_id() -> bool:
    """Whether this process's user namespace has no other user than its own."""
    with open("/proc/self/uid_map", "rb") as file:
        return sum(int(line.split()[2]) for line in file) == 1


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the pid and boot id, its identity."""
    return int(_stat(pid)[19])


def is_ending(pid: int) -> bool:
    """Whether a process has ended or is about to: an init does when all that is in its namespace has been collected."""
    try:
        return bool(int(_stat(pid)[6]) & PF_EXITING)
    except OSError:
        return True


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat that follow the name: proc_pid_stat(5)'s third is number 0."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).rpartition(b")")[2].split()
    finally:
        os.close(fd)
