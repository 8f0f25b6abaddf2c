"""Programs in sealed memory files: what a container may get hold of without harm (memfd_create(2), fcntl(2)).

A container that gets at `/proc/self/exe` of what started it must find nothing there to change (CVE-2019-5736).
This module imports no ctypes: it is on the way of every container that `proa-runtime` creates.
"""

from __future__ import annotations

import errno
import fcntl
import posix

MFD_CLOEXEC = 0x1
MFD_ALLOW_SEALING = 0x2
MFD_EXEC = 0x10
F_ADD_SEALS = 1033
F_GET_SEALS = 1034
F_SEAL_SEAL = 0x1
F_SEAL_SHRINK = 0x2
F_SEAL_GROW = 0x4
F_SEAL_WRITE = 0x8
F_SEAL_EXEC = 0x20


def memfd_executable(name: str) -> int:
    """A sealable memory file that may be executed, also where vm.memfd_noexec asks to say so."""
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        return posix.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # kernels before 6.3 do not know the flag
            raise
        return posix.memfd_create(name, flags)


def seal(fd: int) -> None:
    """Make a memory file immutable for good: content, size, and (Linux 6.3) its mode."""
    try:
        # Before F_SEAL_SEAL, which forbids adding more.
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)


def sealed_interpreter(name: str) -> int:
    """A sealed copy of the program that runs now, to be executed by its descriptor."""
    image = memfd_executable(name)
    try:
        with open("/proc/self/exe", "rb", buffering=0) as interpreter:
            size = posix.fstat(interpreter.fileno()).st_size
            while posix.sendfile(image, interpreter.fileno(), None, size):
                pass
        posix.fchmod(image, 0o511)
        seal(image)
    except BaseException:
        posix.close(image)
        raise
    return image


def runs_sealed() -> bool:
    """Whether this process runs from a memory file."""
    return posix.readlink("/proc/self/exe").startswith("/memfd:")


def library_path() -> dict[bytes, bytes]:
    """Where the dynamic linker finds libpython, as environment: a memory file has no place that $ORIGIN could name."""
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            path = line.partition(b"/")[2]
            if b"/libpython" in path and b".so" in path:
                return {b"LD_LIBRARY_PATH": b"/" + path.rpartition(b"/")[0]}
    return {}
