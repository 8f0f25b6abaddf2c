"""A small ext4 in a file, mounted by a loop device: a disk that can be full, broken, or lose its power."""

from __future__ import annotations

import os
import subprocess
import tempfile
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
        unmount(place)


def unmount(place: Path) -> None:
    """Unmount as soon as nobody uses it any more."""
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:  # by the loop device of a disk on it, see `copied`
            subprocess.run(["umount", "-l", str(place)], check=True)
            return
        time.sleep(0.02)


@contextmanager
def copied(disk: Path, directory: Path) -> Iterator[Path]:
    """The bytes that are on the disk now, holes kept, as another disk: what a power loss leaves.

    Under a name of its own: the mount namespace of a process that started meanwhile may keep the last copy mounted for
    a while, and mount(8) would take that loop device, and what is cached of it, for a file of the same name.
    """
    fd, name = tempfile.mkstemp(suffix=".img", dir=directory)
    os.close(fd)
    copy = Path(name)
    try:
        subprocess.run(["cp", "--sparse=always", "--reflink=never", str(disk), name], check=True)
        yield copy
    finally:
        copy.unlink()


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
