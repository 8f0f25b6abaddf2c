"""The container's root: mounted in its own mount namespace only, entered by pivot_root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from proa.errors import Denied, Unsupported
from proa.linux import mount as m
from proa.runtime.root import open_in_root
from proa.runtime.steps.step import Init, Step


class SeparateMounts(Step):
    """Cut the new mount namespace off from the host's: what is mounted here is never seen there.

    Sources whose mounts must stay shared with the host (`rshared` binds) are copied before the cut.
    """

    __slots__ = ("shared",)
    name = "separating mounts from the host"

    def __init__(self, shared: Sequence[tuple[str, str, bool]] = ()) -> None:
        self.shared = tuple(shared)

    def describe(self) -> str:
        return "make / a recursive slave of the host's mounts"

    def execute(self, init: Init) -> None:
        for destination, source, recursive in self.shared:
            flags = m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0)
            init.trees[destination] = m.open_tree(m.AT_FDCWD, source, flags)
        m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)


class MountRoot(Step):
    """Mount the root file system on top of `/`, from where only fds reach it until the pivot."""

    __slots__ = ("kind", "options", "source")
    name = "mounting the root file system"

    def __init__(self, kind: str, source: str, options: Sequence[str]) -> None:
        self.kind = kind
        self.source = source
        self.options = tuple(options)

    def describe(self) -> str:
        return f"mount {self.kind} {self.source} as the root ({','.join(self.options)})"

    @property
    def subject(self) -> str:
        return self.source

    def execute(self, init: Init) -> None:
        if self.kind in ("bind", "rbind", "none"):
            recursive = self.kind == "rbind" or "rbind" in self.options
            fd = m.open_tree(m.AT_FDCWD, self.source, m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0))
            attrs = m.MOUNT_ATTR_RDONLY if "ro" in self.options else 0
            m.mount_setattr(fd, "", attr_set=attrs, propagation=m.MS_PRIVATE, recursive=recursive)
        else:
            fd = mount_overlay(self.options)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Denied("the root file system is not a directory", code="invalid-rootfs", subject=self.source)
        m.move_mount(fd, "", m.AT_FDCWD, "/")
        init.keep_root(fd)


def mount_overlay(options: Sequence[str]) -> int:
    """A detached overlay mount from `key=value` options as a snapshotter writes them (`\\:` escapes a colon).

    Layers are handed over one by one (Linux 6.8), so their number and the length of the whole do not matter. Raises
    Unsupported on older kernels when mount(2)'s one page is not enough.
    """
    attrs = m.MOUNT_ATTR_RDONLY if "ro" in options else 0
    settings = [option.partition("=") for option in options if option not in ("ro", "rw")]
    layers = [layer for key, _separator, value in settings if key == "lowerdir" for layer in split_layers(value)]
    data = os.fsencode(",".join("".join(setting) for setting in settings))
    if _before_linux_6_5():
        return _mount_overlay_by_string(data, readonly=bool(attrs))
    fs = m.fsopen("overlay")
    try:
        m.fsconfig_string(fs, "source", "overlay")
        try:
            for layer in layers:
                m.fsconfig_string(fs, "lowerdir+", layer)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _mount_overlay_by_string(data, readonly=bool(attrs))
        for key, separator, value in settings:
            if separator and key != "lowerdir":
                m.fsconfig_string(fs, key, value)
            elif not separator:
                m.fsconfig_flag(fs, key)
        m.fsconfig_create(fs)
        return m.fsmount(fs, attrs)
    finally:
        os.close(fs)


def _before_linux_6_5() -> bool:
    """Whether overlayfs knows mount(2) only: it would take every option, then complain to the kernel's log and fail."""
    major, minor = os.uname().release.split(".", 2)[:2]
    return (int(major), int(minor.split("-")[0])) < (6, 5)


def _mount_overlay_by_string(data: bytes, *, readonly: bool) -> int:
    """The mount(2) way, for kernels that do not take layers one by one. Uses /proc of this namespace as mount point."""
    if len(data) > 4095:
        raise Unsupported(
            "this kernel cannot mount that many layers",
            code="too-many-layers",
            hint="use Linux 6.8 or a shorter data root path",
        )
    m.mount("overlay", "/proc", "overlay", m.MS_RDONLY if readonly else 0, data)
    try:
        return m.open_tree(m.AT_FDCWD, "/proc", m.OPEN_TREE_CLONE)
    finally:
        m.umount2("/proc", m.MNT_DETACH)


def split_layers(value: str) -> list[str]:
    """The directories of a `lowerdir` value: split at colons that no backslash escapes, then unescaped."""
    if "\\" not in value:
        return value.split(":")
    layers, current, escaped = [], "", False
    for character in value:
        if escaped:
            current += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ":":
            layers.append(current)
            current = ""
        else:
            current += character
    return [*layers, current]


class PivotRoot(Step):
    """Make the container's root this process's `/` and drop every mount of the host."""

    __slots__ = ()
    name = "entering the root file system"

    def describe(self) -> str:
        return "pivot_root into the root file system and detach the host's tree"

    def execute(self, init: Init) -> None:
        # Copied before the pivot: no name inside the container has a say in what masks its files.
        fd = m.open_tree(m.AT_FDCWD, "/dev/null", m.OPEN_TREE_CLONE | m.AT_SYMLINK_NOFOLLOW)
        if os.fstat(fd).st_rdev != os.makedev(1, 3):
            raise Denied("the host's /dev/null is not the null device", code="bad-dev-null", subject="/dev/null")
        m.mount_setattr(fd, "", propagation=m.MS_PRIVATE)
        init.null_fd = fd
        # pivot_root(".", ".") as in pivot_root(2): the old root ends up on top of the new one, and is left from inside.
        old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(init.root_fd)
        m.pivot_root(".", ".")
        os.fchdir(old_root)
        os.close(old_root)
        m.mount(None, ".", None, m.MS_REC | m.MS_SLAVE)
        m.umount2(".", m.MNT_DETACH)
        os.chdir("/")
        init.keep_root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        for fd, flags, recursive in init.propagation:
            m.mount_setattr(fd, "", propagation=flags, recursive=recursive)
            os.close(fd)
        init.propagation.clear()


class ReopenNull(Step):
    """Replace standard streams that are the host's /dev/null by the container's own device of that number."""

    __slots__ = ()
    name = "reopening /dev/null"

    def execute(self, init: Init) -> None:
        null = os.makedev(1, 3)
        for fd in (0, 1, 2):
            if os.fstat(fd).st_rdev != null:
                continue
            try:
                own = open_in_root(init.root_fd, "/dev/null", os.O_RDWR | os.O_NONBLOCK)
            except OSError:
                return  # a container without /dev/null keeps what it was given
            if os.fstat(own).st_rdev == null:
                os.dup2(own, fd)
            os.close(own)


class RemountReadonly(Step):
    """Make the mount at a path read-only once nothing needs to be made in it any more."""

    __slots__ = ("path",)
    name = "remounting read-only"

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"remount {self.path} read-only"

    @property
    def subject(self) -> str:
        return self.path

    def execute(self, init: Init) -> None:
        fd = open_in_root(init.root_fd, self.path)
        m.mount_setattr(fd, "", attr_set=m.MOUNT_ATTR_RDONLY)
        os.close(fd)
