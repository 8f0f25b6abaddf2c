"""Files of this machine as a tar archive and back, for copies to and from containers.

`pack` reads below a path, `unpack` writes below a directory: one name at a time, through descriptors, and never through
a symbolic link, because what comes out of a container may have been made to lead elsewhere. Devices are not made.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator

from proa.errors import Conflict, Corrupt, Invalid

__all__ = ["newest_time", "pack", "unpack"]

_PIECE = 1 << 20
_BLOCK = 512
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
_DEVICES = {stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}
_LAYER_XATTRS = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")


def pack(path: str, name: str, *, whole: bool = False) -> Iterator[bytes]:
    """The archive of the file or tree at `path`, whose members' names begin with `name` ("." for the content alone).

    A symbolic link is packed as one. whole: as a root file system, with devices and extended attributes, but without
    what is mounted below it. Raises OSError, Conflict when a file shrinks while it is read.
    """
    links: dict[tuple[int, int], str] = {}
    stack = [(path, name)]
    device = os.lstat(path).st_dev
    while stack:
        path, name = stack.pop()
        status = os.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None and whole:
            kind = _DEVICES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue  # sockets and devices are of this machine only
        member = tarfile.TarInfo(name)
        if whole:
            member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            member.pax_headers = _xattrs(path)
        member.type = kind
        member.mode = stat.S_IMODE(status.st_mode)
        member.uid, member.gid = status.st_uid, status.st_gid
        member.mtime = int(status.st_mtime)
        if kind == tarfile.DIRTYPE and (not whole or status.st_dev == device):
            names = sorted(os.listdir(path), reverse=True)
            stack += [(os.path.join(path, child), f"{name}/{child}") for child in names]
        elif kind == tarfile.SYMTYPE:
            member.linkname = os.readlink(path)
        elif status.st_nlink > 1:
            first = links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                member.type, member.linkname = tarfile.LNKTYPE, first
        if member.type == tarfile.REGTYPE:
            yield from _file(path, member)
        else:
            yield _head(member)
    yield bytes(2 * _BLOCK)


def newest_time(path: str) -> int:
    """The latest modification in a tree, in seconds since the epoch: when it became what it is. Raises OSError."""
    newest = 0
    for directory, directories, files in os.walk(path):
        for name in (".", *directories, *files):
            newest = max(newest, int(os.lstat(os.path.join(directory, name)).st_mtime))
    return newest


def _xattrs(path: str) -> dict[str, str]:
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(_LAYER_XATTRS):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _head(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file(path: str, member: tarfile.TarInfo) -> Iterator[bytes]:
    fd = os.open(path, _FILE)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Conflict(f"{path} changed while it was read", code="file-changed", subject=path)
        left = member.size = status.st_size
        yield _head(member)
        while left:
            piece = os.read(fd, min(left, _PIECE))
            if not piece:
                raise Conflict(f"{path} changed while it was read", code="file-changed", subject=path)
            left -= len(piece)
            yield piece
        yield bytes(-member.size % _BLOCK)
    finally:
        os.close(fd)


class _Pieces(io.RawIOBase):
    """Chunks as a file to read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def unpack(
    chunks: Iterable[bytes],
    directory: str,
    *,
    rename: tuple[str, str] | None = None,
    keep_owner: bool = False,
    skipped: Callable[[str], None] | None = None,
) -> int:
    """Write the members of an archive below a directory; returns the bytes of its files.

    rename: (first part of the members' names, what to call it instead). keep_owner: give files the ids in the archive,
    else they are the caller's. skipped: told the name of each device, which is not made.
    Raises Corrupt for a bad archive, Invalid for names that lead out of the directory or would replace a directory by
    something else or the other way round, OSError.
    """
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    size = 0
    times: dict[tuple[str, ...], int] = {}
    try:
        reader = io.BufferedReader(_Pieces(chunks), _PIECE)
        with tarfile.open(fileobj=reader, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # else it remembers every member
                parts = _parts(member.name, rename)
                if member.isdir() and not parts:
                    continue  # the directory itself: it is the caller's
                if not parts:
                    raise Invalid("the archive replaces the directory itself", code="archive-root")
                if member.isdev() and not member.isfifo():
                    if skipped is not None:
                        skipped(member.name)
                    continue
                size += _Member(top, parts, member, archive, rename, keep_owner).write()
                if member.isdir():
                    times[parts] = int(member.mtime)
            while reader.read(_PIECE):
                pass
        for parts, seconds in reversed(times.items()):
            fd = _open(top, parts, make=False)
            os.utime(fd, (seconds, seconds))
            os.close(fd)
    except tarfile.TarError as error:
        raise Corrupt(f"the archive is damaged: {error}", code="archive-damaged") from None
    finally:
        os.close(top)
    return size


def _parts(name: str, rename: tuple[str, str] | None) -> tuple[str, ...]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Invalid(f"the archive has a member {name[:200]!r}, which leads out of the directory", code="archive-name")
    if rename is not None:
        if rename[0] in ("", ".", "/"):
            parts = [rename[1], *parts]
        elif parts and parts[0] == rename[0]:
            parts[0] = rename[1]
    return tuple(part for part in parts if part not in ("", "."))


def _open(top: int, parts: tuple[str, ...], *, make: bool) -> int:
    """A descriptor of a directory below `top`, the caller's to close. Raises Invalid when a part is a link."""
    fd = os.dup(top)
    try:
        for part in parts:
            try:
                child = os.open(part, _DIRECTORY, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(part, 0o755, dir_fd=fd)
                child = os.open(part, _DIRECTORY, dir_fd=fd)
            except NotADirectoryError:
                path = "/".join(parts)
                raise Invalid(f"{path!r}: {part!r} is there and no directory", code="archive-name") from None
            os.close(fd)
            fd = child
    except BaseException:
        os.close(fd)
        raise
    return fd


class _Member:
    """One member on its way to the file system."""

    def __init__(
        self,
        top: int,
        parts: tuple[str, ...],
        member: tarfile.TarInfo,
        archive: tarfile.TarFile,
        rename: tuple[str, str] | None,
        keep_owner: bool,
    ) -> None:
        self._top = top
        self._parts = parts
        self._member = member
        self._archive = archive
        self._rename = rename
        self._keep_owner = keep_owner

    def write(self) -> int:
        """Make it, in place of what has its name; returns the bytes of a file."""
        member, name = self._member, self._parts[-1]
        parent = _open(self._top, self._parts[:-1], make=True)
        try:
            self._make_room(parent, name)
            if member.isdir():
                self._directory(parent, name)
            elif member.isreg():
                self._file(parent, name)
                return member.size
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=parent)
                self._own(parent, name)
            elif member.islnk():
                self._link(parent, name)
            elif member.isfifo():
                os.mkfifo(name, 0o600, dir_fd=parent)
                self._own(parent, name)
                os.chmod(name, member.mode & 0o7777, dir_fd=parent)
            else:
                raise Corrupt(f"the archive has a member of unknown type: {member.name[:200]!r}", code="archive-type")
        finally:
            os.close(parent)
        return 0

    def _make_room(self, parent: int, name: str) -> None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        directory = stat.S_ISDIR(status.st_mode)
        if directory != self._member.isdir():
            kinds = ("directory", "non-directory") if directory else ("non-directory", "directory")
            shown = "/".join(self._parts)
            raise Invalid(
                f'cannot overwrite {kinds[0]} "{shown}" with {kinds[1]} "{shown}"', code="kind-differs", subject=shown
            )
        if not directory:
            os.unlink(name, dir_fd=parent)

    def _directory(self, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            if self._keep_owner:
                os.fchown(fd, self._member.uid, self._member.gid)
            os.fchmod(fd, self._member.mode & 0o7777 | 0o700)
        finally:
            os.close(fd)

    def _file(self, parent: int, name: str) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            content = self._archive.extractfile(self._member)
            assert content is not None
            while piece := content.read(_PIECE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
            if self._keep_owner:
                os.fchown(fd, self._member.uid, self._member.gid)
            os.fchmod(fd, self._member.mode & 0o7777)
            os.utime(fd, (self._member.mtime, self._member.mtime))
        finally:
            os.close(fd)

    def _link(self, parent: int, name: str) -> None:
        parts = _parts(self._member.linkname, self._rename)
        source = _open(self._top, parts[:-1], make=False)
        try:
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _own(self, parent: int, name: str) -> None:
        if self._keep_owner:
            os.chown(name, self._member.uid, self._member.gid, dir_fd=parent, follow_symlinks=False)
