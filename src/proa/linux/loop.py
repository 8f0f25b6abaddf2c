"""Loop devices: a file as a block device (loop(4), linux/loop.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

__all__ = ["attach"]

LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_AUTOCLEAR = 4

# struct loop_config { u32 fd, block_size; struct loop_info64 info (232 bytes); u64 reserved[8]; }; of the info only
# lo_flags and lo_file_name are set.
_CONFIG = struct.Struct("=II 40x 12x I 64s 112x 64x")
_ATTEMPTS = 64


def attach(file_fd: int, name: str) -> tuple[int, str]:
    """A loop device on an open file, as (descriptor, path); the kernel lets go of it with its last user.

    name: shown by losetup(8). Raises OSError: ENOENT without the loop driver, EPERM, EBUSY when others are faster.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            config = _CONFIG.pack(file_fd, 0, LO_FLAGS_AUTOCLEAR, name.encode()[:63])
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # else somebody took it between the two calls
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "every free loop device was taken by others", "/dev/loop-control")
