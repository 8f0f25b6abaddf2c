"""Packed records must have the sizes the kernel's headers give them."""

import struct

import pytest

from proa.linux import bpf, capability, files, inotify, landlock, mount, process, sched, seccomp, tty


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (process.CLONE_ARGS, 88),
        (process.SIGINFO, 128),
        (files.OPEN_HOW, 24),
        (mount.MOUNT_ATTR, 32),
        (mount.STATFS, 120),
        (capability.CAP_HEADER, 8),
        (capability.CAP_DATA, 24),
        (seccomp.SOCK_FILTER, 8),
        (seccomp.SOCK_FPROG, 16),
        (bpf.BPF_INSN, 8),
        (inotify.INOTIFY_EVENT, 16),
        (sched.SCHED_ATTR, 48),
        (landlock.RULESET_ATTR, 24),
        (landlock.PATH_BENEATH_ATTR, 12),
        (tty.WINSIZE, 8),
    ],
)
def test_size(record: struct.Struct, size: int) -> None:
    assert record.size == size
