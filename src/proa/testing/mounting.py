"""Look at a snapshot the way a container does: mounted, in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from proa.linux import mount as kernel
from proa.linux import process
from proa.storage.snapshots import Mount

_CHILD = "import sys; from proa.testing.mounting import main; main(*sys.argv[1:])"


def run_mounted(mounts: Sequence[Mount], script: str) -> str:
    """Run shell `script` in the mounted root of `mounts` and return what it prints. Needs root.

    A child process makes the mount namespace and takes it away by ending. Raises subprocess.CalledProcessError.
    """
    with tempfile.TemporaryDirectory() as target:
        described = json.dumps([[m.type, m.source, m.options] for m in mounts])
        done = subprocess.run(
            [sys.executable, "-I", "-c", _CHILD, target, described, script],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    return done.stdout


def mount_all(mounts: Sequence[Mount], target: str) -> None:
    """Mount on `target` as snapshots.py says. Raises OSError."""
    for m in mounts:
        if m.type == "bind":
            kernel.mount(m.source, target, None, kernel.MS_BIND)
            if "ro" in m.options:
                kernel.mount(None, target, None, kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)
            continue
        flags = kernel.MS_RDONLY if "ro" in m.options else 0
        options = [o for o in m.options if o != "ro"]
        if not any(o.startswith("lowerdir+=") for o in options):
            kernel.mount(m.source, target, m.type, flags, ",".join(options))
            continue
        fs_fd = kernel.fsopen(m.type)
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                kernel.fsconfig_string(fs_fd, key, value)
            else:
                kernel.fsconfig_flag(fs_fd, key)
        kernel.fsconfig_create(fs_fd)
        mount_fd = kernel.fsmount(fs_fd, kernel.MOUNT_ATTR_RDONLY if flags else 0)
        kernel.move_mount(mount_fd, "", kernel.AT_FDCWD, target)
        os.close(mount_fd)
        os.close(fs_fd)


def main(target: str, described: str, script: str) -> None:
    """The child process: become the shell that runs `script` in the mounts."""
    process.unshare(process.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    mount_all([Mount(kind, source, tuple(options)) for kind, source, options in json.loads(described)], target)
    os.chdir(target)
    os.execv("/bin/sh", ["sh", "-ec", script])  # noqa: S606 (the point is to run this script)
