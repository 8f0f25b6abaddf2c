"""Images and commands for the tests of advisories."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from engines import PrivateEngine
from oci_images import Image, tar

BUSYBOX = (("bin", None), ("bin/busybox", Path("/bin/busybox").read_bytes()), ("bin/sh", "busybox"))
KERNEL = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname")
_names = itertools.count()


def load(box: PrivateEngine, *members: Any, **config: Any) -> str:
    """An image of busybox and `members` with this config; its name."""
    name = f"tests/row{next(_names)}:1"
    box.proa("load", stdin=Image(tar(*BUSYBOX, *members), config=config).archive(f"docker.io/{name}"))
    return name


def refused(box: PrivateEngine, *command: str, status: int = 125) -> str:
    """What a command that must fail says, with nothing left of it."""
    before = box.containers()
    done = box.proa(*command, check=False, timeout=30)
    assert done.returncode == status, done
    assert b"Traceback" not in done.stderr
    assert box.containers() == before
    return done.stderr.decode()
