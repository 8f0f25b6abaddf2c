"""How much a directory tree occupies."""

from __future__ import annotations

import os

from proa.storage.snapshots import Usage


def disk_usage(path: str | os.PathLike[str]) -> Usage:
    """Allocated bytes and inodes below `path` and of it, a file with several hard links once.

    Follows no symbolic link and enters no other file system; what vanishes while walking is not counted.
    """
    top = os.lstat(path)
    size = top.st_blocks * 512
    inodes = 1
    linked: set[int] = set()
    pending = [os.fspath(path)]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if found.st_dev != top.st_dev:
                    continue
                is_directory = entry.is_dir(follow_symlinks=False)
                if found.st_nlink > 1 and not is_directory:
                    if found.st_ino in linked:
                        continue
                    linked.add(found.st_ino)
                size += found.st_blocks * 512
                inodes += 1
                if is_directory:
                    pending.append(entry.path)
    return Usage(size, inodes)
