"""Give files of mounts to the container's user (the option `U` of `-v`)."""

from __future__ import annotations

import os

from proa.runtime.steps.step import Init, Step

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class GiveMounts(Step):
    """Change the owner of everything in mounts that asked for it: through no link, into no other file system."""

    __slots__ = ()
    name = "giving a volume to the user"

    def describe(self) -> str:
        return "give the files of volumes mounted with U to the user"

    def execute(self, init: Init) -> None:
        for mount in init.to_give:
            # The mount's own fd may be one that only names it (O_PATH).
            top = os.open(".", _DIRECTORY, dir_fd=mount)
            try:
                _give(top, init.uid, init.gid, os.fstat(top).st_dev)
            finally:
                os.close(top)
                os.close(mount)
        init.to_give.clear()


def _give(fd: int, uid: int, gid: int, device: int) -> None:
    pending = [fd]
    os.fchown(fd, uid, gid)
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    if (found.st_uid, found.st_gid) != (uid, gid):
                        os.chown(entry.name, uid, gid, dir_fd=directory, follow_symlinks=False)
                        if found.st_mode & 0o6000 and not entry.is_symlink():
                            os.chmod(entry.name, found.st_mode & 0o7777, dir_fd=directory)  # chown(2) took them away
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(os.open(entry.name, _DIRECTORY, dir_fd=directory))
        finally:
            if directory != fd:
                os.close(directory)
