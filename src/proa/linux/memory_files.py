"""Programs in sealed memory files: what a container may get hold of without harm (memfd_create(2), fcntl(2)).

A container that gets at `/proc/self/exe` of what started it must find nothing there to change (CVE-2019-5736).
This module imports no ctypes: it is on the way of every container that `proa-runtime` creates.
"""

from __future__ import annotations

import errno
import fcntl
import os

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
        return os.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # kernels before 6.3 do not know the flag
            raise
        return os.memfd_create(name, flags)


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
            size = os.fstat(interpreter.fileno()).st_size
            while os.sendfile(image, interpreter.fileno(), None, size):
                pass
        os.fchmod(image, 0o511)
        seal(image)
    except BaseException:
        os.close(image)
        raise
    return image


def runs_sealed() -> bool:
    """Whether this process runs from a memory file."""
    return os.readlink("/proc/self/exe").startswith("/memfd:")


def library_path() -> dict[str, str]:
    """Where the dynamic linker finds libpython, as environment: a memory file has no place that $ORIGIN could name."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.partition("/")[2]
            if "/libpython" in path and ".so" in path:
                return {"LD_LIBRARY_PATH": os.path.dirname("/" + path.rstrip("\n"))}
    return {}
