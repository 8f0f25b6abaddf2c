"""A root file system for a user namespace where the kernel cannot show files with other ids: their owners are changed.

Every file is copied into the container's own layer by that, once; `MARK` beside the layer says for which maps it was
done. An interrupted change is done again from the image's own owners, which stay as they are below.
"""

from __future__ import annotations

import os
import stat
import struct

from proa.errors import Conflict, Invalid
from proa.linux import mount as m
from proa.linux import process as p
from proa.runtime.steps.rootfs import mount_overlay, split_layers
from proa.runtime.userns import Mappings, from_child, outside_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "shifted"
_CAPABILITY = "security.capability"
# struct vfs_cap_data of revision 2 is this and 16 bytes; revision 3 adds the id of the namespace's root.
_REVISION_2, _REVISION_3, _FLAGS = 0x02000000, 0x03000000, 0x00FFFFFF


def is_shifted(options: Sequence[str]) -> bool:
    """Whether the owners in this overlay have been changed already."""
    return os.path.exists(f"{os.path.dirname(_upper(options))}/{MARK}")


def _upper(options: Sequence[str]) -> str:
    return next((o.partition("=")[2] for o in options if o.startswith("upperdir=")), "")


def shifted_overlay(options: Sequence[str], mappings: Mappings) -> int:
    """The detached overlay, every file in it owned as `mappings` say. Raises Conflict when made for other maps."""
    upper = _upper(options)
    if not upper:
        raise Invalid("a read-only root cannot be given other owners", code="not-mappable")
    mark = f"{os.path.dirname(upper)}/{MARK}"
    wanted = repr([tuple(map(tuple, maps)) for maps in mappings]).encode()
    try:
        with open(mark, "rb") as file:
            done = file.read()
    except FileNotFoundError:
        done = b""
    if done and done != wanted:
        raise Conflict("the container's files belong to another user namespace", code="shifted-otherwise")

    def mount() -> int:
        p.unshare(p.CLONE_NEWNS)
        m.mount(None, "/", None, m.MS_REC | m.MS_PRIVATE)
        whole = mount_overlay(options)
        if not done:
            below = _below(options)
            _shift(below, whole, mappings)
            os.close(below)
            _write_mark(mark, wanted)
        return whole

    return from_child(mount)


def _below(options: Sequence[str]) -> int:
    """What the container was made from, read-only."""
    layers = [layer for o in options if o.startswith("lowerdir=") for layer in split_layers(o[len("lowerdir=") :])]
    layers += [o[len("lowerdir+=") :] for o in options if o.startswith("lowerdir+=")]
    if len(layers) == 1:
        return os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    dropped = ("upperdir=", "workdir=")
    return mount_overlay([*(o for o in options if not o.startswith(dropped) and o not in ("volatile", "rw")), "ro"])


def _shift(below: int, whole: int, mappings: Mappings) -> None:
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=below)
    try:
        _change(top, ".", whole, mappings)
        for directory, names, files, fd in os.fwalk(".", follow_symlinks=False, dir_fd=top):
            there = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=whole)
            try:
                for name in (*names, *files):
                    _change(fd, name, there, mappings)
            finally:
                os.close(there)
    finally:
        os.close(top)


def _change(below: int, name: str, whole: int, mappings: Mappings) -> None:
    status = os.stat(name, dir_fd=below, follow_symlinks=False)
    uid, gid = outside_id(mappings.uids, status.st_uid), outside_id(mappings.gids, status.st_gid)
    if uid is None or gid is None:
        return  # has no owner inside, as with mapped mounts
    capability = b""
    if stat.S_ISREG(status.st_mode):
        try:
            capability = os.getxattr(f"/proc/self/fd/{below}/{name}", _CAPABILITY, follow_symlinks=False)
        except OSError:
            pass  # none, or a file system without
    os.chown(name, uid, gid, dir_fd=whole, follow_symlinks=False)
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=whole)  # chown(2) took them away
    if len(capability) == 20:
        (magic,) = struct.unpack_from("<I", capability)
        root = outside_id(mappings.uids, 0) or 0
        owned = struct.pack("<I", _REVISION_3 | magic & _FLAGS) + capability[4:] + struct.pack("<I", root)
        if magic & ~_FLAGS == _REVISION_2:
            os.setxattr(f"/proc/self/fd/{whole}/{name}", _CAPABILITY, owned, follow_symlinks=False)


def _write_mark(mark: str, text: bytes) -> None:
    fd = os.open(f"{mark}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(f"{mark}.new", mark)
