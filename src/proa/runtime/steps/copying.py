"""Copy what a directory holds into the file system that will cover it (mount option `tmpcopyup`)."""

from __future__ import annotations

import os
import stat

_CHUNK_BYTES = 1 << 20


def copy_content(source: int, target: int) -> None:
    """Copy all that is in the directory `source` into the empty directory `target`, and the directory's own mode.

    Both are O_PATH descriptors of directories. Links are copied, never followed; what lies on another mount is the
    other mount's; special files but FIFOs are left out. Raises OSError, ENOSPC when the target is too small.
    """
    reader = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    writer = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    try:
        _copy_directory(reader, writer)
        _copy_attributes(os.fstat(reader), writer)
    finally:
        os.close(reader)
        os.close(writer)


def _copy_directory(source: int, target: int) -> None:
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, name, status)
        elif kind == stat.S_IFDIR and status.st_dev == device:
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below, made = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_directory(below, made)
                _copy_attributes(status, made)
            finally:
                os.close(below)
                os.close(made)


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while os.sendfile(writer, reader, None, _CHUNK_BYTES):
                pass
            _copy_attributes(status, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_attributes(status: os.stat_result, fd: int) -> None:
    os.fchown(fd, status.st_uid, status.st_gid)  # before the mode: it clears setuid
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
