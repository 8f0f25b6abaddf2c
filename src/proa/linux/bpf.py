"""bpf(2), as far as device rules of cgroup v2 need it: load, attach, replace, query, detach."""

from __future__ import annotations

import os
import struct

from proa.linux._libc import addressof, buffer, c_uint, fail, syscall

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 0x2
BPF_F_REPLACE = 0x4

# struct bpf_insn { u8 code; u8 dst:4, src:4; s16 off; s32 imm; }
BPF_INSN = struct.Struct("=BBhi")
# Heads of union bpf_attr. Load: prog_type insn_cnt insns license log_level log_size log_buf kern_version prog_flags
_PROG_LOAD = struct.Struct("=IIQQIIQII")
# Attach: target_fd attach_bpf_fd attach_type attach_flags replace_bpf_fd
_PROG_ATTACH = struct.Struct("=IIIII")
# Query: target_fd attach_type query_flags attach_flags prog_ids prog_cnt
_PROG_QUERY = struct.Struct("=IIIIQI4x")

_bpf = syscall("bpf")


def load(program_type: int, program: bytes) -> int:
    """Load a verified program (packed bpf_insn records); returns its fd, close-on-exec."""
    code = buffer(program)
    licence = buffer(b"Apache-2.0\0")
    attr = _PROG_LOAD.pack(
        program_type, len(program) // BPF_INSN.size, addressof(code), addressof(licence), 0, 0, 0, 0, 0
    )
    fd = _bpf(BPF_PROG_LOAD, attr, len(attr))
    if fd < 0:
        fail("bpf(PROG_LOAD)")
    os.set_inheritable(fd, False)
    return fd


def attach(cgroup_fd: int, program_fd: int, kind: int, flags: int, replace_fd: int = 0) -> None:
    """Attach a program to a cgroup directory; with BPF_F_REPLACE it takes the place of `replace_fd` atomically."""
    attr = _PROG_ATTACH.pack(cgroup_fd, program_fd, kind, flags, replace_fd)
    if _bpf(BPF_PROG_ATTACH, attr, len(attr)) < 0:
        fail("bpf(PROG_ATTACH)")


def detach(cgroup_fd: int, program_fd: int, kind: int) -> None:
    """Detach a program from a cgroup directory."""
    attr = _PROG_ATTACH.pack(cgroup_fd, program_fd, kind, 0, 0)
    if _bpf(BPF_PROG_DETACH, attr, len(attr)) < 0:
        fail("bpf(PROG_DETACH)")


def attached(cgroup_fd: int, kind: int, limit: int = 64) -> list[int]:
    """Ids of the programs of one kind attached to a cgroup directory."""
    ids = (c_uint * limit)()
    attr = buffer(_PROG_QUERY.pack(cgroup_fd, kind, 0, 0, addressof(ids), limit))
    if _bpf(BPF_PROG_QUERY, attr, len(attr)) < 0:
        fail("bpf(PROG_QUERY)")
    return list(ids[: _PROG_QUERY.unpack(attr.raw)[5]])


def open_by_id(program_id: int) -> int:
    """An fd of a loaded program."""
    attr = struct.pack("=III", program_id, 0, 0)
    fd = _bpf(BPF_PROG_GET_FD_BY_ID, attr, len(attr))
    if fd < 0:
        fail("bpf(PROG_GET_FD_BY_ID)")
    return fd
