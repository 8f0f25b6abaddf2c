"""Scheduling: sched_setattr(2) and ioprio_set(2)."""

from __future__ import annotations

import struct

from proa.linux._libc import fail, syscall

SCHED_OTHER = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_IDLE = 5
SCHED_DEADLINE = 6

SCHEDULING_POLICIES = {
    "SCHED_OTHER": SCHED_OTHER,
    "SCHED_FIFO": SCHED_FIFO,
    "SCHED_RR": SCHED_RR,
    "SCHED_BATCH": SCHED_BATCH,
    "SCHED_ISO": 4,
    "SCHED_IDLE": SCHED_IDLE,
    "SCHED_DEADLINE": SCHED_DEADLINE,
}
SCHEDULING_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

IOPRIO_CLASS_RT = 1
IOPRIO_CLASS_BE = 2
IOPRIO_CLASS_IDLE = 3
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13

# struct sched_attr { u32 size, policy; u64 flags; s32 nice; u32 priority; u64 runtime, deadline, period; }
SCHED_ATTR = struct.Struct("=IIQiIQQQ")

_sched_setattr = syscall("sched_setattr")
_ioprio_set = syscall("ioprio_set")


def sched_setattr(
    policy: int,
    *,
    nice: int = 0,
    priority: int = 0,
    flags: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """sched_setattr(2) on this thread; times in nanoseconds."""
    attr = SCHED_ATTR.pack(SCHED_ATTR.size, policy, flags, nice, priority, runtime, deadline, period)
    if _sched_setattr(0, attr, 0) < 0:
        fail("sched_setattr")


def ioprio_set(io_class: int, priority: int) -> None:
    """ioprio_set(2) on this thread; priority 0 (high) to 7."""
    if _ioprio_set(_IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority) < 0:
        fail("ioprio_set")
