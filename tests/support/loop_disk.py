"""A small ext4 in a file, mounted by a loop device: a disk that can be full, broken, or lose its power."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def format_disk(path: Path, megabytes: int = 32) -> None:
    """Make an ext4 file system in a new file."""
    with path.open("wb") as f:
        f.truncate(megabytes << 20)
    options = ["-q", "-F", "-b", "4096", "-J", "size=4", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    subprocess.run(["mkfs.ext4", *options, str(path)], check=True)


@contextmanager
def mounted(disk: Path, place: Path) -> Iterator[Path]:
    """Mount the file at `place` for a while; gone afterwards, also when processes that end just now still use it."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
    try:
        yield place
    finally:
        deadline = time.monotonic() + 20
        while subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, f"{place} is still in use"
            time.sleep(0.02)


def copy_disk(disk: Path, copy: Path) -> None:
    """The bytes that are on the disk now, holes kept: what a power loss leaves."""
    subprocess.run(["cp", "--sparse=always", "--reflink=never", str(disk), str(copy)], check=True)


def fill(directory: Path, leave: int) -> Path:
    """Occupy the file system of `directory` but for about `leave` bytes; the file to delete afterwards."""
    ballast = directory / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        state = os.statvfs(directory)
        os.posix_fallocate(fd, 0, max(4096, state.f_bavail * state.f_frsize - leave - 65536))
        piece = 65536
        while os.statvfs(directory).f_bavail * state.f_frsize > leave and piece >= 4096:
            try:
                os.posix_fallocate(fd, os.fstat(fd).st_size, piece)
            except OSError:
                piece //= 2
        os.fsync(fd)
    finally:
        os.close(fd)
    return ballast
