"""Paths inside a container's root: resolved by the kernel below a held fd, then used by fd only.

Every name here may have been chosen by an image, and another container may be changing a shared volume meanwhile. So a
path is opened once with RESOLVE_IN_ROOT (`..` and absolute links stop at the root), and missing parts are made through
the fd of the directory that holds them (CVE-2021-30465, CVE-2024-45310).
"""

from __future__ import annotations

import errno
import os
import stat

from proa.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
IN_ROOT_STRICT = IN_ROOT | RESOLVE_NO_SYMLINKS


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH, *, symlinks: bool = True) -> int:
    """Open `path` inside the root. With `symlinks=False` no part of it may be a symbolic link (OSError ELOOP)."""
    return openat2(root_fd, path, flags, resolve=IN_ROOT if symlinks else IN_ROOT_STRICT)


def open_directory(root_fd: int, path: str, *, create_mode: int | None = None) -> int:
    """An O_PATH fd of a directory inside the root; missing parts are made with `create_mode` when given."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return openat2(root_fd, path, flags, resolve=IN_ROOT)
    except FileNotFoundError:
        if create_mode is None:
            raise
    parts = [part for part in path.split("/") if part and part != "."]
    current = openat2(root_fd, ".", flags, resolve=IN_ROOT)
    for end in range(1, len(parts) + 1):
        prefix = "/".join(parts[:end])
        try:
            step = openat2(root_fd, prefix, flags, resolve=IN_ROOT)
        except FileNotFoundError:
            try:
                os.mkdir(parts[end - 1], create_mode, dir_fd=current)
            except FileExistsError:
                # A dangling link, or somebody else was faster; the open below tells.
                pass
            step = openat2(root_fd, prefix, flags, resolve=IN_ROOT)
        os.close(current)
        current = step
    return current


def open_file(root_fd: int, path: str, *, create_mode: int = 0o755) -> int:
    """An O_PATH fd of what is at `path` inside the root; an empty regular file is made there when nothing is."""
    try:
        return openat2(root_fd, path, os.O_PATH, resolve=IN_ROOT)
    except FileNotFoundError:
        pass
    parent, name = os.path.split(path.rstrip("/"))
    directory = open_directory(root_fd, parent or "/", create_mode=create_mode)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, create_mode & 0o777, dir_fd=directory)
    except FileExistsError:
        raise OSError(errno.ELOOP, "openat: dangling symbolic link", path) from None
    finally:
        os.close(directory)


def read_regular(root_fd: int, path: str, limit: int) -> bytes | None:
    """The content of a regular file inside the root, or None when there is none.

    Anything else that might block or never end (FIFO, device, socket) is refused: raises OSError(EINVAL); a file of
    more than `limit` bytes raises OSError(EFBIG).
    """
    try:
        fd = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "open: not a regular file", path)
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"open: more than {limit} bytes", path)
        content = bytearray()
        while len(content) <= limit:
            chunk = os.read(fd, min(limit + 1 - len(content), 1 << 20))
            if not chunk:
                return bytes(content)
            content += chunk
        raise OSError(errno.EFBIG, f"read: more than {limit} bytes", path)
    finally:
        os.close(fd)


def write_proc(proc_fd: int, path: str, value: bytes) -> None:
    """Write a file of a private procfs mount: nothing mounted over it and no symbolic link can redirect the write."""
    fd = openat2(proc_fd, path, os.O_WRONLY, resolve=PRIVATE)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


# RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
PRIVATE = 0x0F
