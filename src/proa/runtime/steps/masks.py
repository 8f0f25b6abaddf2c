"""Hide and write-protect paths of /proc and /sys (CVE-2025-31133: what masks them must not come from the container)."""

from __future__ import annotations

import errno
import os
import stat

from proa.linux import mount as m
from proa.runtime.root import open_in_root
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class MaskPaths(Step):
    """Put the host's null device on files, one shared empty tmpfs on directories; missing paths are skipped."""

    __slots__ = ("paths",)
    name = "masking paths"

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))

    def describe(self) -> str:
        return f"mask {' '.join(self.paths)}"

    def execute(self, init: Init) -> None:
        # A mount can be copied by any kernel only once it is attached, so the first of each kind is the model.
        models: dict[bool, int] = {}
        for path in self.paths:
            try:
                target = open_in_root(init.root_fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            directory = stat.S_ISDIR(os.fstat(target).st_mode)
            model = models.get(directory, -1)
            if model < 0:
                models[directory] = tree = _empty_directory() if directory else init.null_fd
            else:
                tree = m.open_tree(model, "", m.OPEN_TREE_CLONE | m.AT_EMPTY_PATH)
            m.move_mount(tree, "", target, "")
            os.close(target)
            if tree != models[directory]:
                os.close(tree)


def _empty_directory() -> int:
    """A detached read-only tmpfs that can hold nothing."""
    for inodes in ("1", "2"):  # some kernels need a second inode for the root itself
        fs = m.fsopen("tmpfs")
        try:
            m.fsconfig_string(fs, "nr_blocks", "1")
            m.fsconfig_string(fs, "nr_inodes", inodes)
            m.fsconfig_create(fs)
            return m.fsmount(fs, m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC)
        except OSError as error:
            if inodes == "2" or error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(fs)
    raise AssertionError("unreachable")


class ReadonlyPaths(Step):
    """Bind paths on themselves, read-only, other attributes kept; missing ones are skipped."""

    __slots__ = ("paths",)
    name = "write-protecting paths"

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))

    def describe(self) -> str:
        return f"write-protect {' '.join(self.paths)}"

    def execute(self, init: Init) -> None:
        for path in self.paths:
            try:
                target = open_in_root(init.root_fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            tree = m.open_tree(target, "", m.OPEN_TREE_CLONE | m.AT_RECURSIVE | m.AT_EMPTY_PATH)
            m.mount_setattr(tree, "", attr_set=m.MOUNT_ATTR_RDONLY, recursive=True)
            m.move_mount(tree, "", target, "")
            os.close(tree)
            os.close(target)
