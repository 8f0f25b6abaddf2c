"""The directories of a layer being written: open fds by path, parents made as needed, attributes set at the end.

While a layer is applied its directories have plain modes and the applier's own ids, so that nothing is inherited from
a setgid bit or a default ACL; `finish` gives each its attributes, deepest first, and then no entry can change them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from proa.errors import Invalid
from proa.storage.layers import overlay
from proa.storage.layers.attributes import Attributes, Owner, read_attributes, write_attributes
from proa.storage.layers.merged import Layer, MergedView
from proa.storage.layers.names import display, split
from proa.storage.layers.opened import OpenDirectories, open_directory

__all__ = ["Directories"]

_ALIASES = 4096
_MAX_LINKS = 40


class Directories:
    """All directories of the layer at `root_fd`, which is stacked on `lower_fds`, uppermost first.

    Paths are canonical. A *real* path has no symbolic links on it.
    """

    def __init__(self, root_fd: int, lower_fds: Sequence[int], owner: Owner, prefix: str) -> None:
        self._root_fd = root_fd
        self._owner = owner
        self._prefix = prefix
        self._opened = OpenDirectories(root_fd)  # by real path
        self._aliases: dict[bytes, bytes] = {}  # path through links -> real path
        self._attributes: dict[bytes, Attributes | int] = {}  # an implied directory has just a time
        self._opaque: set[bytes] = set()
        self._whiteouts: set[bytes] = set()
        lowers = [Layer(fd, lambda fd, _path: overlay.is_opaque(fd, prefix)) for fd in lower_fds]
        self.has_lowers = bool(lowers)
        self._lower = MergedView(lowers)
        self.merged = MergedView([Layer(root_fd, lambda _fd, path: path in self._opaque), *lowers])
        self.implied_mtime_ns = 0  # of parents no entry describes and no lower layer has

    def open(self, path: bytes) -> tuple[int, bytes]:
        """(fd, real path) of a directory; missing ones on the way are made. The fd stays ours.

        Raises Invalid when something on the way is not a directory.
        """
        fd = self._opened.get(path)
        if fd is not None:
            return fd, path
        real = self._aliases.get(path)
        if real is None:
            real = self._resolve(path)
            if real != path:
                if len(self._aliases) >= _ALIASES:
                    self._aliases.clear()
                self._aliases[path] = real
        return self._opened.fd(real), real

    def describe(self, real: bytes, attributes: Attributes) -> None:
        """Say what attributes a directory that is there gets in the end; the last call counts."""
        self._attributes[real] = attributes

    def hide_below(self, real: bytes) -> None:
        """Make a directory opaque: what lower layers have in it is gone."""
        self._opaque.add(real)

    def white_out(self, real: bytes) -> None:
        """Note that lower layers' `real` is deleted: a directory made there, now or later, starts empty."""
        self._whiteouts.add(real)

    def made(self, real: bytes, attributes: Attributes | None) -> None:
        """A directory was made, and gets these attributes in the end; those of the layers below if None."""
        self._attributes[real] = self.implied_mtime_ns if attributes is None else attributes
        # What was noted about an earlier one of that name holds no more.
        (self._opaque.add if real in self._whiteouts else self._opaque.discard)(real)

    def hidden(self, real: bytes) -> bool:
        """Whether lower layers cannot show through at `real`, because a directory above it is opaque."""
        if not self._opaque:
            return False
        while real:
            real = split(real)[0]
            if real in self._opaque:
                return True
        return False

    def in_lower(self, real: bytes) -> bool:
        """Whether lower layers have something at `real`."""
        if not self.has_lowers:
            return False
        found = self._lower.find(real, follow_parents=False)
        if found is None:
            return False
        os.close(found.dir_fd)
        return True

    def forget(self, real: bytes) -> None:
        """A directory or symbolic link is gone from the layer, with all below it.

        What was noted about directories below stays, because to find it would take time that grows with the layer: it
        is corrected when they are made again and passed over in the end.
        """
        self._aliases.clear()
        self._opened.forget(real)
        self._attributes.pop(real, None)
        self._opaque.discard(real)

    def finish(self) -> int:
        """Set the attributes of all directories; returns how many there are, the root not counted."""
        self._hide_root()
        self._drop_needless_whiteouts()
        count = -1  # not the root
        for real in sorted(self._attributes, reverse=True):
            try:
                fd = self._opened.fd(real)
            except (FileNotFoundError, NotADirectoryError):
                continue
            count += 1
            if real in self._opaque and real:
                overlay.set_opaque(fd, self._prefix)
            attributes = self._attributes[real]
            if isinstance(attributes, int):
                attributes = self._implied(real) or Attributes(0o755, 0, 0, attributes)
            write_attributes(fd, attributes, self._owner)
        return count

    def close(self) -> None:
        """Close the fds."""
        self._opened.close()

    def _implied(self, real: bytes) -> Attributes | None:
        """Those of the directory that shows at `real` below this layer, if one does. b"" is the root."""
        if not self.has_lowers or real in self._whiteouts or self.hidden(real):
            return None
        if not real:
            return read_attributes(self._lower.root_fd)
        found = self._lower.find(real, follow_parents=False)
        if found is None:
            return None
        try:
            if not stat.S_ISDIR(found.status.st_mode):
                return None
            fd = open_directory(found.name, found.dir_fd)
            try:
                return read_attributes(fd)
            finally:
                os.close(fd)
        finally:
            os.close(found.dir_fd)

    def _drop_needless_whiteouts(self) -> None:
        """Remove whiteouts below directories that became opaque later: overlay would list them as files."""
        for real in self._whiteouts:
            if self.hidden(real):
                parent, name = split(real)
                try:
                    dir_fd = self._opened.fd(parent)
                    if overlay.is_whiteout(os.stat(name, dir_fd=dir_fd, follow_symlinks=False)):
                        os.unlink(name, dir_fd=dir_fd)
                except (FileNotFoundError, NotADirectoryError):
                    pass

    def _hide_root(self) -> None:
        """Overlay ignores the opaque mark on the root: white out what is there instead."""
        if b"" not in self._opaque:
            return
        for name in self._lower.names():
            try:
                status = os.stat(name, dir_fd=self._root_fd, follow_symlinks=False)
            except FileNotFoundError:
                overlay.make_whiteout(self._root_fd, name)
            else:
                if stat.S_ISDIR(status.st_mode):
                    self._opaque.add(name)

    def _resolve(self, path: bytes) -> bytes:
        """The real path of a directory, made as needed; links are followed as in a chroot at the layer's root."""
        real = split(path)[0]
        while real and real not in self._opened:
            real = split(real)[0]
        todo = path[len(real) :].split(b"/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                real = split(real)[0]
                continue
            child = real + b"/" + part if real else part
            if child not in self._opened:
                fd = self._opened.fd(real)
                try:
                    self._opened.keep(child, open_directory(part, fd))
                except FileNotFoundError:
                    self._make(fd, part, child)
                except NotADirectoryError:
                    target = self._not_a_directory(fd, part, child)
                    if target is not None:
                        links += 1
                        if links > _MAX_LINKS:
                            raise Invalid(
                                f"too many symbolic links on the way to {display(path)!r}",
                                code="layer-parent",
                                subject=display(path),
                            ) from None
                        if target.startswith(b"/"):
                            real = b""
                        todo += target.split(b"/")[::-1]
                        continue
            real = child
        return real

    def _not_a_directory(self, fd: int, part: bytes, child: bytes) -> bytes | None:
        """A link's target; None when the name was a whiteout, which a new directory has replaced. Raises Invalid."""
        status = os.stat(part, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(part, dir_fd=fd)
        if not overlay.is_whiteout(status):
            raise Invalid(
                f"archive puts files below {display(child)!r}, which is not a directory",
                code="layer-parent",
                subject=display(child),
            )
        os.unlink(part, dir_fd=fd)
        self._make(fd, part, child)
        return None

    def _make(self, fd: int, part: bytes, child: bytes) -> None:
        os.mkdir(part, 0o755, dir_fd=fd)
        self._opened.keep(child, open_directory(part, fd))
        self.made(child, None)
