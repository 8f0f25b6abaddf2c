"""Mounts of config.json: each destination is opened once inside the root and then used as an fd."""

from __future__ import annotations

import errno
import os
import stat

from proa.errors import Denied, Invalid
from proa.linux import mount as m
from proa.runtime import userns
from proa.runtime.mount_options import MountOptions
from proa.runtime.root import open_directory, open_file, open_in_root
from proa.runtime.steps.copying import copy_content
from proa.runtime.steps.step import Init, Step

# Files of lxcfs, the only mounts allowed below /proc.
PROC_FILES = frozenset(
    {
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    }
)


def open_destination(init: Init, destination: str, *, directory: bool) -> int:
    """The fd to mount on; made when missing, as a directory or an empty file.

    /proc, /sys and what is below them may not be reached through links. A destination that leads into a procfs by way
    of a link somewhere else is refused, whatever its name says.
    """
    strict = destination in ("/proc", "/sys") or destination.startswith(("/proc/", "/sys/"))
    if strict:
        try:
            fd = open_in_root(init.root_fd, destination, symlinks=False)
        except FileNotFoundError:
            fd = _make(init, destination, directory=directory)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            text = f"{destination} of the image is reached through a symbolic link"
            raise Denied(text, code="unsafe-destination", subject=destination) from None
    else:
        fd = _make(init, destination, directory=directory)
    try:
        mode = os.fstat(fd).st_mode
        if directory and not stat.S_ISDIR(mode):
            raise OSError(errno.ENOTDIR, "mount destination is not a directory", destination)
        if not directory and stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, "mount destination is a directory, the source is a file", destination)
        if m.fstatfs_magic(fd) == m.PROC_SUPER_MAGIC and destination not in PROC_FILES and destination != "/proc":
            text = f"{destination} leads into /proc, where nothing may be mounted"
            raise Denied(text, code="unsafe-destination", subject=destination)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make(init: Init, destination: str, *, directory: bool) -> int:
    if directory:
        return open_directory(init.root_fd, destination, create_mode=0o755)
    return open_file(init.root_fd, destination)


class OnDestination(Step):
    """A step that puts a mount on `destination`, or changes the one there."""

    __slots__ = ("destination", "options")

    def __init__(self, destination: str, options: MountOptions) -> None:
        self.destination = destination
        self.options = options

    def what(self) -> str:
        """The deed, without the place, for people."""
        return self.name

    def describe(self) -> str:
        return f"{self.what()} on {self.destination}{' (read-only)' if self.options.readonly else ''}"

    @property
    def subject(self) -> str:
        return self.destination


class Mount(OnDestination):
    """Mount a new file system (proc, sysfs, tmpfs, devpts, mqueue, …)."""

    __slots__ = ("defer_readonly", "kind", "source")
    name = "mounting"

    def __init__(
        self, kind: str, source: str, destination: str, options: MountOptions, *, defer_readonly: bool = False
    ) -> None:
        super().__init__(destination, options)
        self.kind = kind
        self.source = source
        self.defer_readonly = defer_readonly

    def what(self) -> str:
        return f"mount {self.kind}"

    def execute(self, init: Init) -> None:
        target = open_destination(init, self.destination, directory=True)
        attrs = self.options.attr_set
        if self.defer_readonly:
            attrs &= ~m.MOUNT_ATTR_RDONLY
        try:
            fd = self._make(0 if self.options.copy_up else attrs)
        except PermissionError:
            if self.kind != "sysfs":
                raise
            # A network namespace that is not this user namespace's: the machine's /sys, never to be written.
            fd = m.open_tree(m.AT_FDCWD, "/sys", m.OPEN_TREE_CLONE | m.AT_RECURSIVE)
            m.mount_setattr(fd, "", attr_set=attrs | m.MOUNT_ATTR_RDONLY, propagation=m.MS_PRIVATE, recursive=True)
        if self.options.copy_up:
            copy_content(target, fd)
            m.mount_setattr(fd, "", attr_set=attrs)
        for propagation, recursive in self.options.propagation:
            m.mount_setattr(fd, "", propagation=propagation, recursive=recursive)
        m.move_mount(fd, "", target, "")
        os.close(target)
        if self.kind == "proc" and init.proc_fd < 0:
            init.proc_fd = fd
        elif self.kind == "devpts" and init.devpts_fd < 0:
            init.devpts_fd = fd
        else:
            os.close(fd)

    def _make(self, attrs: int) -> int:
        fs = m.fsopen(self.kind)
        try:
            if self.source:
                m.fsconfig_string(fs, "source", self.source)
            for key, value in self.options.settings:
                if value is None:
                    m.fsconfig_flag(fs, key)
                else:
                    m.fsconfig_string(fs, key, value)
            m.fsconfig_create(fs)
            return m.fsmount(fs, attrs)
        finally:
            os.close(fs)


class Bind(OnDestination):
    """Bind a file or directory of the host, or an already open tree of mounts."""

    __slots__ = ("mappings", "source")
    name = "binding"

    def __init__(
        self, source: str, destination: str, options: MountOptions, mappings: userns.Mappings | None = None
    ) -> None:
        super().__init__(destination, options)
        self.source = source
        self.mappings = mappings

    def what(self) -> str:
        return f"bind {self.source}"

    def execute(self, init: Init) -> None:
        tree = init.trees.pop(self.destination, -1)
        if tree < 0:
            tree = self.open_tree()
        if self.destination == "/proc":
            if m.fstatfs_magic(tree) != m.PROC_SUPER_MAGIC or os.fstat(tree).st_ino != 1:
                text = "only a whole procfs may be bound on /proc"
                raise Denied(text, code="unsafe-destination", subject=self.destination)
            init.proc_fd = os.dup(tree)
        attach(init, tree, self.destination, self.options)

    def open_tree(self, user: userns.Target | None = None, *, mapped: bool = True) -> int:
        """The detached tree, through the maps of its own or those of the container's namespace `user` when asked.

        mapped: False leaves the maps out. Raises Unsupported where the kernel cannot.
        """
        options = self.options
        flags = m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if options.recursive else 0)
        try:
            tree = self._open_below(flags) if options.subpath else m.open_tree(m.AT_FDCWD, self.source, flags)
        except FileNotFoundError:
            text = f"bind source path does not exist: {self.source}"
            raise Invalid(text, code="bind-source-missing", subject=self.source) from None
        if mapped and (options.idmap or self.mappings is not None):
            if self.mappings is None and user is None:
                text = f"an idmapped mount on {self.destination} needs mappings or a user namespace"
                raise Invalid(text, code="invalid-config", subject=self.destination)
            fd = userns.make(self.mappings) if self.mappings is not None else user.fd if user is not None else -1
            try:
                userns.map_tree(tree, fd, recursive=options.idmap == "ridmap")
            except BaseException:
                os.close(tree)
                raise
            finally:
                if self.mappings is not None:
                    os.close(fd)
        return tree

    def _open_below(self, flags: int) -> int:
        """The subpath, resolved as if the source were the root: whatever links a container has put there."""
        top = os.open(self.source, os.O_PATH | os.O_CLOEXEC)
        try:
            return open_subpath(top, self.options.subpath, flags, self.source)
        finally:
            os.close(top)


def open_subpath(top: int, subpath: str, flags: int, where: str) -> int:
    """A detached tree of what is at `subpath` inside the directory `top`. Raises Invalid when nothing is there."""
    try:
        inner = open_in_root(top, subpath)
    except OSError as error:
        text = f"cannot access path {where}/{subpath}: {os.strerror(error.errno or 0).lower()}"
        raise Invalid(text, code="subpath-missing", subject=subpath) from None
    try:
        return m.open_tree(inner, "", flags | m.AT_EMPTY_PATH)
    finally:
        os.close(inner)


def attach(init: Init, tree: int, destination: str, options: MountOptions) -> None:
    """Give a detached tree its attributes and put it on `destination`; closes `tree`.

    The attributes are there before anything can see the mount. Propagation to the host is set only after the pivot.
    """
    directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    if options.attr_set or options.attr_clr:
        m.mount_setattr(tree, "", attr_set=options.attr_set, attr_clr=options.attr_clr)
    if options.rec_set or options.rec_clr:
        m.mount_setattr(tree, "", attr_set=options.rec_set, attr_clr=options.rec_clr, recursive=True)
    if not options.propagation:
        m.mount_setattr(tree, "", propagation=m.MS_PRIVATE, recursive=True)
    for kind, recursive in options.propagation:
        if kind != m.MS_SHARED:
            m.mount_setattr(tree, "", propagation=kind, recursive=recursive)
    target = open_destination(init, destination, directory=directory)
    m.move_mount(tree, "", target, "")
    os.close(target)
    if options.chown:
        init.to_give.append(os.dup(tree))
    if options.shared:
        for kind, recursive in options.propagation:
            if kind == m.MS_SHARED:
                init.propagation.append((os.dup(tree), kind, recursive))
    os.close(tree)


class Remount(OnDestination):
    """Change attributes of the mount that is at `destination`."""

    __slots__ = ()
    name = "remounting"

    def what(self) -> str:
        return "change the mount"

    def execute(self, init: Init) -> None:
        fd = open_in_root(init.root_fd, self.destination)
        try:
            m.mount_setattr(fd, "", attr_set=self.options.attr_set, attr_clr=self.options.attr_clr)
        finally:
            os.close(fd)


class MountCgroup(OnDestination):
    """Show the container its own cgroups at `destination`: one file system (version 2) or one per controller (1)."""

    __slots__ = ("new_namespace",)
    name = "mounting cgroups"

    def __init__(self, destination: str, options: MountOptions, *, new_namespace: bool) -> None:
        super().__init__(destination, options)
        self.new_namespace = new_namespace

    def what(self) -> str:
        return "mount cgroups"

    def execute(self, init: Init) -> None:
        target = open_destination(init, self.destination, directory=True)
        attrs = self.options.attr_set
        hierarchies = sorted(init.cgroup_dirs)
        if hierarchies == [""]:
            fd = self._hierarchy(init, "", attrs)
            m.move_mount(fd, "", target, "")
            os.close(fd)
            os.close(target)
            return
        # The tmpfs stays writable until every controller has its directory.
        fs = m.fsopen("tmpfs")
        for key, value in (("source", "tmpfs"), ("mode", "755"), ("size", "64k")):
            m.fsconfig_string(fs, key, value)
        m.fsconfig_create(fs)
        top = m.fsmount(fs, attrs & ~m.MOUNT_ATTR_RDONLY)
        os.close(fs)
        m.move_mount(top, "", target, "")
        os.close(target)
        for hierarchy in hierarchies:
            if not hierarchy:
                continue  # version 2 beside version 1 has no controllers to show
            name = hierarchy.removeprefix("name=")
            os.mkdir(name, 0o755, dir_fd=top)
            mounted = self._hierarchy(init, hierarchy, attrs)
            m.move_mount(mounted, "", top, name)
            os.close(mounted)
            for alias in name.split(",") if "," in name else ():
                os.symlink(name, alias, dir_fd=top)
        if attrs & m.MOUNT_ATTR_RDONLY:
            m.mount_setattr(top, "", attr_set=m.MOUNT_ATTR_RDONLY)
        os.close(top)

    def _hierarchy(self, init: Init, hierarchy: str, attrs: int) -> int:
        """A detached mount of one hierarchy, whose root is the container's own cgroup."""
        if self.new_namespace:
            fs = m.fsopen("cgroup" if hierarchy else "cgroup2")
            try:
                m.fsconfig_string(fs, "source", "cgroup")
                if hierarchy.startswith("name="):
                    m.fsconfig_flag(fs, "none")
                    m.fsconfig_string(fs, "name", hierarchy[5:])
                else:
                    for controller in hierarchy.split(",") if hierarchy else ():
                        m.fsconfig_flag(fs, controller)
                m.fsconfig_create(fs)
                return m.fsmount(fs, attrs)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EBUSY):
                    raise
            finally:
                os.close(fs)
        tree = m.open_tree(m.AT_FDCWD, init.cgroup_dirs[hierarchy], m.OPEN_TREE_CLONE)
        m.mount_setattr(tree, "", attr_set=attrs, propagation=m.MS_PRIVATE)
        return tree
