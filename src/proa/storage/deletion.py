"""Delete a directory tree by descriptors: never through a symbolic link, never across a mount, whatever is inside.

A path could change under us and a bind mount inside would have its source emptied; so each directory is opened
relative to its parent with openat2(NO_XDEV, NO_SYMLINKS), and what cannot be opened that way is left and reported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from proa.errors import Conflict
from proa.linux.files import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

# Deeper directories are first moved up to the top, so that neither descriptors nor the stack run out.
_MAX_DEPTH = 48
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_STICKY_FLAGS = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class DeletionBlocked(OSError):
    """Something inside is a mount point, or must not be removed (EBUSY, EPERM); the rest has been deleted."""


def delete_tree(dir_fd: int, name: str) -> int:
    """Delete `name`, a file or a tree, in the directory `dir_fd`; returns how many names were removed.

    A name that is not there is fine. Raises DeletionBlocked after deleting all the rest.
    """
    walk = _Deletion(dir_fd, name)
    walk.run()
    if walk.blocked:
        raise DeletionBlocked(errno.EBUSY, f"{len(walk.blocked)} entries could not be deleted", walk.blocked[0])
    return walk.count


def remove_tree(path: Path | str) -> None:
    """Delete the file or tree at `path` now; fine when it is not there. Raises Conflict when a part of it is busy."""
    parent, name = os.path.split(os.fspath(path))
    try:
        fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        delete_tree(fd, name)
    except DeletionBlocked as e:
        raise Conflict(f"{path} cannot be removed: {e.filename}", code="removal-blocked", subject=str(path)) from e
    finally:
        os.close(fd)


class _Deletion:
    def __init__(self, dir_fd: int, name: str) -> None:
        self._top = dir_fd
        self._name = name
        self._lifted = 0
        self._pending = [name]
        self.count = 0
        self.blocked: list[str] = []

    def run(self) -> None:
        while self._pending:
            name = self._pending.pop()
            try:
                os.unlink(name, dir_fd=self._top)
                self.count += 1
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError):
                self._directory(self._top, name, 0)

    def _directory(self, parent_fd: int, name: str, depth: int) -> None:
        try:
            fd = self._open(parent_fd, name)
        except FileNotFoundError:
            return
        except OSError as e:  # EXDEV: a mount point; ELOOP, ENOTDIR: it was replaced while we looked
            self.blocked.append(f"{name}: {e.strerror}")
            return
        try:
            self._contents(fd, depth)
        finally:
            os.close(fd)
        self._remove(os.rmdir, parent_fd, name)

    def _contents(self, fd: int, depth: int) -> None:
        # The whole directory is read before anything in it is removed: no order of changes can hide an entry.
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            if not is_directory:
                self._remove(os.unlink, fd, name)
            elif depth < _MAX_DEPTH:
                self._directory(fd, name, depth + 1)
            else:
                self._lift(fd, name)

    def _remove(self, remove: Callable[..., None], parent_fd: int, name: str) -> None:
        try:
            remove(name, dir_fd=parent_fd)
            self.count += 1
        except FileNotFoundError:
            pass
        except OSError as e:
            self._retry(remove, parent_fd, name, e)

    def _retry(self, remove: Callable[..., None], parent_fd: int, name: str, error: OSError) -> None:
        if isinstance(error, PermissionError) and _unlock(parent_fd, name):
            try:
                remove(name, dir_fd=parent_fd)
            except OSError as e:
                error = e
            else:
                self.count += 1
                return
        self.blocked.append(f"{name}: {error.strerror}")

    def _lift(self, fd: int, name: str) -> None:
        while True:
            self._lifted += 1
            target = f"{self._name}.{self._lifted}"
            try:
                os.stat(target, dir_fd=self._top, follow_symlinks=False)
            except FileNotFoundError:
                break
        try:
            os.rename(name, target, src_dir_fd=fd, dst_dir_fd=self._top)
        except OSError as e:
            self.blocked.append(f"{name}: {e.strerror}")
        else:
            self._pending.append(target)

    def _open(self, parent_fd: int, name: str) -> int:
        try:
            return openat2(parent_fd, name, _FLAGS, resolve=_RESOLVE)
        except PermissionError:
            # Not for root: a directory that its owner took the access away from.
            if not self._chmod(parent_fd, name):
                raise
            return openat2(parent_fd, name, _FLAGS, resolve=_RESOLVE)

    @staticmethod
    def _chmod(parent_fd: int, name: str) -> bool:
        fd = openat2(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                return False
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


def _unlock(parent_fd: int, name: str) -> bool:
    """Clear the immutable and append-only flags (chattr +i, +a) that a privileged container may have set."""
    cleared = _clear_flags(parent_fd)
    try:
        fd = openat2(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
    except OSError:
        return False
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            plain = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                cleared = _clear_flags(plain) or cleared
            finally:
                os.close(plain)
    except OSError:
        return False
    finally:
        os.close(fd)
    return cleared


def _clear_flags(fd: int) -> bool:
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))[:4], "little")
        if not flags & _STICKY_FLAGS:
            return False
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, (flags & ~_STICKY_FLAGS).to_bytes(8, "little"))
    except OSError:
        return False
    return True
