"""Process, capability, socket and terminal calls that need no privileges."""

import os
import signal
import socket

import pytest

from proa.linux import capability, landlock, process, seccomp, sockets, tty


def test_pidfd_signals_and_waits() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(1)
    pidfd = process.pidfd_open(pid)
    assert process.start_time(pid) > 0
    assert process.waitid(process.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is None
    process.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert process.waitid(process.P_PIDFD, pidfd, os.WEXITED) == (pid, os.CLD_KILLED, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        process.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


def test_clone3_returns_in_both_processes() -> None:
    pid = os.fork()  # pytest may have threads; its fork has one
    if pid == 0:
        child, pidfd = process.clone3(0, exit_signal=signal.SIGCHLD)
        if child == 0:
            os._exit(7)
        result = process.waitid(process.P_PIDFD, pidfd, os.WEXITED)
        os._exit(0 if result == (child, os.CLD_EXITED, 7) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_capability_sets_agree_with_proc() -> None:
    with open("/proc/self/status") as status:
        fields = dict(line.split(":\t", 1) for line in status.read().splitlines() if line.startswith("Cap"))
    effective, permitted, inheritable = capability.capget()
    assert (effective, permitted, inheritable) == tuple(
        int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh")
    )
    assert capability.bounding() == int(fields["CapBnd"], 16)


def test_fds_travel_over_sockets() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        reader, writer = os.pipe()
        assert sockets.send_fds(left, b"hello", [writer]) == 5
        data, fds = sockets.receive_fds(right, 100)
        assert data == b"hello"
        os.write(fds[0], b"through")
        assert os.read(reader, 100) == b"through"
        assert not os.get_inheritable(fds[0])
        for fd in (reader, writer, *fds):
            os.close(fd)
        assert sockets.peer(left).pid == os.getpid()
        left.send(b"too long")
        with pytest.raises(OSError, match="cut off"):
            sockets.receive_fds(right, 3)


def test_pty_peer_and_window_size() -> None:
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    tty.unlock_pty(master)
    peer = tty.pty_peer(master)
    assert os.ttyname(peer) == f"/dev/pts/{tty.pty_number(master)}"
    tty.set_window_size(master, 33, 101)
    assert tty.window_size(peer) == (33, 101)
    os.close(peer)
    os.close(master)


def test_kernel_knows_the_seccomp_actions_we_use() -> None:
    assert seccomp.action_available(seccomp.SECCOMP_RET_ERRNO)
    assert not seccomp.action_available(0x12340000)
    assert landlock.abi_version() >= 0
