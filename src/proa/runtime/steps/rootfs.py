"""The container's root: mounted in its own mount namespace only, entered by pivot_root."""

from __future__ import annotations

import errno
import os
import stat

from proa.errors import Denied, Invalid, Unsupported
from proa.linux import mount as m
from proa.linux import process as p
from proa.runtime import userns
from proa.runtime.root import open_in_root
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
            if destination in init.trees:
                continue
            flags = m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0)
            init.trees[destination] = m.open_tree(m.AT_FDCWD, source, flags)
        m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)


class MountRoot(Step):
    """Mount the root file system on top of `/`, from where only fds reach it until the pivot."""

    __slots__ = ("kind", "options", "slave", "source")
    name = "mounting the root file system"

    def __init__(self, kind: str, source: str, options: Sequence[str], *, slave: bool = False) -> None:
        self.kind = kind
        self.source = source
        self.options = tuple(options)
        self.slave = slave

    def describe(self) -> str:
        return f"mount {self.kind} {self.source} as the root ({','.join(self.options)})"

    @property
    def subject(self) -> str:
        return self.source

    def execute(self, init: Init) -> None:
        fd = init.root_tree if init.root_tree >= 0 else self.open_tree()
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Denied("the root file system is not a directory", code="invalid-rootfs", subject=self.source)
        m.move_mount(fd, "", m.AT_FDCWD, "/")
        init.root_tree = -1
        init.keep_root(fd)

    def open_tree(self, user: userns.Target | None = None) -> int:
        """The detached mount; with option `idmap` through the maps of `user`, which must be given then."""
        idmap = "idmap" in self.options
        if idmap and user is None:
            raise Invalid("an idmapped root needs a user namespace", code="invalid-config", subject=self.source)
        options = [option for option in self.options if option != "idmap"]
        if self.kind not in ("bind", "rbind", "none"):
            if idmap and user is not None:
                return mapped_overlay(options, user)
            return mount_overlay(options)
        recursive = self.kind == "rbind" or "rbind" in options
        fd = m.open_tree(m.AT_FDCWD, self.source, m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0))
        attrs = m.MOUNT_ATTR_RDONLY if "ro" in options else 0
        propagation = m.MS_SLAVE if self.slave else m.MS_PRIVATE
        m.mount_setattr(fd, "", attr_set=attrs, propagation=propagation, recursive=recursive)
        if idmap and user is not None:
            userns.map_tree(fd, user.fd, recursive=recursive)
        return fd


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


def mapped_overlay(options: Sequence[str], user: userns.Target) -> int:
    """A detached overlay mount whose layers have, on disk, the ids of the user namespace.

    overlayfs itself cannot be shown with other ids, its layers can (Linux 5.19). Upper and work directory must be in
    one mount: all layers are, a mapped copy of the directory they have in common, in place of it, in a mount namespace
    that ends with the child. Who mounts must be somebody in the maps: overlayfs makes files in his name. Raises
    Unsupported.
    """
    if user.uid < 0:
        raise Invalid("the user namespace of an idmapped root must have a root of its own", code="invalid-mappings")
    paths = [path for option in options for path in _layer_paths(option)]
    common = os.path.commonpath(paths)

    def mount() -> int:
        p.unshare(p.CLONE_NEWNS)
        m.mount(None, "/", None, m.MS_REC | m.MS_PRIVATE)
        tree = m.open_tree(m.AT_FDCWD, common, m.OPEN_TREE_CLONE)
        userns.map_tree(tree, user.fd)
        m.move_mount(tree, "", m.AT_FDCWD, common)
        p.prctl(p.PR_SET_SECUREBITS, p.SECBIT_NO_SETUID_FIXUP)  # not to lose the capabilities with the next call
        p.setfsids(user.uid, user.gid)
        return mount_overlay(options)

    return userns.from_child(mount)


def _layer_paths(option: str) -> list[str]:
    key, _separator, value = option.partition("=")
    if key == "lowerdir":
        return split_layers(value)
    return [value] if key in ("lowerdir+", "upperdir", "workdir") else []


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


class SetRootPropagation(Step):
    """Let mounts made in the container's root spread, or not, as the config wants."""

    __slots__ = ("kind", "recursive")
    name = "setting the root's propagation"

    def __init__(self, kind: int, *, recursive: bool) -> None:
        self.kind = kind
        self.recursive = recursive

    def execute(self, init: Init) -> None:
        m.mount_setattr(init.root_fd, "", propagation=self.kind, recursive=self.recursive)


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
