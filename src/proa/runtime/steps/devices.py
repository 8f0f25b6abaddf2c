"""Device nodes, the links of /dev, and the container's console."""

from __future__ import annotations

import errno
import os
import stat

from proa.errors import Denied
from proa.linux import mount as m
from proa.linux import tty
from proa.linux.files import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from proa.runtime.root import open_directory, open_file, open_in_root
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# (path, file type and mode, device number, uid, gid)
Node = tuple[str, int, int, int, int]

_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


class MakeDevices(Step):
    """Make device nodes; where the kernel refuses (user namespace), bind the host's device of the same name."""

    __slots__ = ("nodes",)
    name = "making devices"

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    def describe(self) -> str:
        return f"make devices {' '.join(path for path, *_rest in self.nodes)}"

    def execute(self, init: Init) -> None:
        directories: dict[str, int] = {}
        for path, mode, number, uid, gid in self.nodes:
            parent, name = os.path.split(path)
            directory = directories.get(parent, -1)
            if directory < 0:
                directory = directories[parent] = open_directory(init.root_fd, parent, create_mode=0o755)
            try:
                os.mknod(name, mode, number, dir_fd=directory)
            except FileExistsError:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or status.st_rdev != number:
                    text = f"{path} of the image is not the device it should be"
                    raise Denied(text, code="unsafe-device", subject=path) from None
                continue
            except PermissionError:
                self._bind(init, path, mode, number)
                continue
            if uid or gid:
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        for fd in directories.values():
            os.close(fd)

    def _bind(self, init: Init, path: str, mode: int, number: int) -> None:
        tree = m.open_tree(m.AT_FDCWD, path, m.OPEN_TREE_CLONE)
        status = os.fstat(tree)
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or status.st_rdev != number:
            raise Denied(f"the host's {path} is another device", code="unsafe-device", subject=path)
        target = open_file(init.root_fd, path)
        m.move_mount(tree, "", target, "")
        os.close(target)
        os.close(tree)


class LinkDevices(Step):
    """Make the links programs expect in /dev: fd, stdin, stdout, stderr, core, ptmx."""

    __slots__ = ()
    name = "linking devices"

    def execute(self, init: Init) -> None:
        directory = open_directory(init.root_fd, "/dev", create_mode=0o755)
        links = list(_LINKS)
        if init.proc_fd >= 0 and os.access("kcore", os.F_OK, dir_fd=init.proc_fd):
            links.append(("core", "/proc/kcore"))
        if init.devpts_fd >= 0:
            links.append(("ptmx", "pts/ptmx"))
        for name, target in links:
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError:
                if name == "ptmx":  # an image's own node here would open the host's ptys
                    self._replace(directory, name, target)
        os.close(directory)

    def _replace(self, directory: int, name: str, target: str) -> None:
        try:
            if os.readlink(name, dir_fd=directory) == target:
                return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        os.unlink(name, dir_fd=directory)
        os.symlink(target, name, dir_fd=directory)


class OpenTerminal(Step):
    """Make a pty in the container's own devpts, send its master to the monitor, use its peer as the three streams.

    The master is opened through the fd of the devpts mount made for this container, or, when joining a container,
    through a /dev/pts that is checked to be a devpts (CVE-2025-52565); the peer through the master, without a path.
    """

    __slots__ = ("columns", "console", "rows")
    name = "opening the terminal"

    def __init__(self, rows: int, columns: int, *, console: bool) -> None:
        self.rows = rows
        self.columns = columns
        self.console = console

    def describe(self) -> str:
        return "open a terminal as standard streams" + (" and /dev/console" if self.console else "")

    def execute(self, init: Init) -> None:
        devpts = init.devpts_fd
        if devpts < 0:
            devpts = open_in_root(init.root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY, symlinks=False)
        if m.fstatfs_magic(devpts) != m.DEVPTS_SUPER_MAGIC:
            raise Denied("/dev/pts of the container is not a devpts", code="unsafe-terminal", subject="/dev/pts")
        beneath = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS
        master = openat2(devpts, "ptmx", os.O_RDWR | os.O_NOCTTY, resolve=beneath)
        status = os.fstat(master)
        if status.st_ino != 2 or status.st_rdev != os.makedev(5, 2):
            raise Denied(
                "/dev/pts/ptmx of the container is not a pty master", code="unsafe-terminal", subject="/dev/pts"
            )
        tty.unlock_pty(master)
        peer = tty.pty_peer(master)
        if self.rows and self.columns:
            tty.set_window_size(master, self.rows, self.columns)
        init.channel.send_terminal(master)
        if self.console:
            number = str(tty.pty_number(master))
            tree = m.open_tree(devpts, number, m.OPEN_TREE_CLONE)
            target = self._console_file(init)
            m.move_mount(tree, "", target, "")
            os.close(target)
            os.close(tree)
        os.close(master)
        for fd in (0, 1, 2):
            os.dup2(peer, fd, inheritable=True)
        os.close(peer)
        tty.set_controlling_terminal(0)

    def _console_file(self, init: Init) -> int:
        directory = open_directory(init.root_fd, "/dev", create_mode=0o755)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                fd = os.open("console", flags | os.O_EXCL, 0o600, dir_fd=directory)
            except FileExistsError:
                # Something of the image: mount over it, unless it is a link to somewhere else.
                fd = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                if stat.S_ISLNK(os.fstat(fd).st_mode):
                    os.close(fd)
                    text = "/dev/console of the image is a symbolic link"
                    raise Denied(text, code="unsafe-terminal", subject="/dev/console") from None
            return fd
        finally:
            os.close(directory)


class OwnStreams(Step):
    """Give the user what the standard streams lead to, so that a non-root user can open /dev/stdout."""

    __slots__ = ()
    name = "owning the standard streams"

    def execute(self, init: Init) -> None:
        for fd in (0, 1, 2):
            status = os.fstat(fd)
            if status.st_uid == init.uid or status.st_rdev == os.makedev(1, 3):
                continue
            try:
                os.fchown(fd, init.uid, status.st_gid)
            except OSError as error:
                # Sockets, files on read-only mounts and of other owners keep theirs.
                if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                    raise
