"""Start an interpreter that runs from a sealed copy of itself, so that no container can reach the real one.

`/proc/self/exe` of such a process is an immutable memory file: a container that gets hold of it can neither replace
the host's interpreter nor write through it (security: the sealed-copy rule; memfd_create(2), F_SEAL_EXEC).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from proa.linux.memory_files import library_path, sealed_interpreter

__all__ = ["import_locations", "start_sealed"]

# Runs with -S: only the standard library is importable until the engine's own locations are added after it.
# typing_extensions, where installed, would be imported by msgspec and bring a megabyte (inspect, ast, tokenize, …).
_BOOT = (
    "import sys;sys.modules['typing_extensions']=None;sys.path+=sys.argv[4:];"
    "from {module} import main;main(int(sys.argv[2]),int(sys.argv[3]))"
)


def import_locations(*modules: ModuleType) -> list[str]:
    """The sys.path entries that these packages were imported from: site-packages, a source tree, a user install."""
    locations: list[str] = []
    for module in modules:
        source = module.__file__
        assert source is not None
        location = str(Path(source).parent.parent)
        if location not in locations:
            locations.append(location)
    return locations


def start_sealed(
    module: str, title: str, channel_fd: int, locations: Sequence[str], *, stderr: int
) -> subprocess.Popen[bytes]:
    """Exec `module.main(channel_fd, sealed_fd)` in a sealed interpreter, in a session of its own.

    The new process inherits stdio (/dev/null, and `stderr`), the channel, and the memory file it should close. Its
    command line begins with the interpreter's path, by which it finds its standard library; `title` follows.
    """
    image = sealed_interpreter("proa")
    try:
        arguments = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT.format(module=module), title]
        return subprocess.Popen(
            [*arguments, str(channel_fd), str(image), *locations],
            executable=f"/proc/self/fd/{image}",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=library_path(),
            cwd="/",
            pass_fds=(channel_fd, image),
            start_new_session=True,
        )
    finally:
        os.close(image)
