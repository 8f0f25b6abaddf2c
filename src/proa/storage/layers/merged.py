"""Look up paths in a stack of overlay layer directories as if they were mounted, without mounting them.

Every step opens one name relative to a directory's fd and follows no link; symbolic links are followed by hand and stay
inside, as in a chroot. So hostile layers cannot lead out, whoever runs this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from proa.storage.layers.opened import open_directory
from proa.storage.layers.overlay import is_whiteout

__all__ = ["Found", "Layer", "MAX_LINKS", "MergedView", "redirect"]

MAX_LINKS = 40


class Layer(NamedTuple):
    """A layer directory, and how to ask it whether one of its directories (fd, path) is opaque."""

    fd: int
    is_opaque: Callable[[int, bytes], bool]


class Found(NamedTuple):
    """A file of the merged view: the index of its layer, its directory there (the caller closes it), name, status, and
    its path without links."""

    layer: int
    dir_fd: int
    name: bytes
    status: os.stat_result
    path: bytes


class MergedView:
    """The union of `layers`, uppermost first. Not thread-safe; owns no fds."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers

    @property
    def root_fd(self) -> int:
        """The root directory of the uppermost layer."""
        return self._layers[0].fd

    def names(self) -> list[bytes]:
        """What the root directory shows, sorted."""
        shown: dict[bytes, bool] = {}
        for index, layer in enumerate(self._layers):
            if index and self._layers[index - 1].is_opaque(self._layers[index - 1].fd, b""):
                break
            for name in map(os.fsencode, os.listdir(layer.fd)):
                if name not in shown:
                    shown[name] = not is_whiteout(os.stat(name, dir_fd=layer.fd, follow_symlinks=False))
        return sorted(name for name, there in shown.items() if there)

    def find(self, path: bytes, *, follow_parents: bool = True) -> Found | None:
        """The file at canonical `path`, its last part not followed; None when there is none.

        follow_parents=False treats a symbolic link on the way as the end of the way.
        """
        links = MAX_LINKS if follow_parents else 0
        todo = path.split(b"/") if path else []
        while True:
            outcome = self._descend(todo)
            if outcome is None or isinstance(outcome, Found):
                return outcome
            if not links:
                return None
            links -= 1
            todo = outcome

    def _descend(self, parts: list[bytes]) -> Found | list[bytes] | None:
        """Walk to `parts`; a list is where a symbolic link on the way leads instead."""
        level = [(index, layer.fd) for index, layer in enumerate(self._layers)]
        opened: list[int] = []
        path = b""
        try:
            for position, part in enumerate(parts):
                below: list[tuple[int, int]] = []
                path = path + b"/" + part if path else part
                last = position == len(parts) - 1
                for index, fd in level:
                    try:
                        status = os.stat(part, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if not stat.S_ISDIR(status.st_mode):
                        if below:
                            break  # hidden by a directory above
                        if is_whiteout(status):
                            return None
                        if last:
                            return Found(index, os.dup(fd), part, status, path)
                        if stat.S_ISLNK(status.st_mode):
                            return redirect(parts[:position], os.readlink(part, dir_fd=fd), parts[position + 1 :])
                        return None
                    if last:
                        return Found(index, os.dup(fd), part, status, path)
                    child = open_directory(part, fd)
                    opened.append(child)
                    below.append((index, child))
                    if self._layers[index].is_opaque(child, path):
                        break
                if not below:
                    return None
                level = below
            return None
        finally:
            for fd in opened:
                os.close(fd)


def redirect(parents: list[bytes], target: bytes, rest: list[bytes]) -> list[bytes]:
    """The path that a link named by the last of its parents leads to. Its parents have no links."""
    # Parts of the target may be links themselves, so "link/.." must not be dropped by the letter: only leading ".."
    # can be, because the parents are real directories. A ".." after a name is beyond what layers legitimately hold.
    parts = [] if target.startswith(b"/") else list(parents)
    for part in (*target.split(b"/"), *rest):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts
