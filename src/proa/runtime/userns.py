"""User namespaces: ids of a container that are other ids outside (user_namespaces(7), mount_setattr(2) IDMAP).

    launcher                                      container's first process
    make(uids, gids) -> userns
    open what is to be mounted, shown through
    the maps (`prepare`)
    setns(userns), clone3(other namespaces) ----> born in it, still as the launcher's ids, which have no
                                                  meaning there; becomes its root; mounts what was prepared

Every other namespace must belong to the user namespace, else the container's root could do nothing in it; so the
process that clones is in it already, and cannot come back. What needs the host's privileges is therefore done before:
opening sources below directories that only root may enter, and mapping mounts, which the owner of the file system
must allow.

On disk the files keep the ids of the image: one tree serves containers of all maps, and whatever looks at a container's
files from outside (commit, cp, diff) need not know. File systems that cannot be mapped are copied (`steps.shifting`).
"""

from __future__ import annotations

import _socket
import errno
import os
from itertools import pairwise

from proa.errors import KINDS, Internal, Invalid, ProaError, Unsupported
from proa.linux import mount as m
from proa.linux import process as p
from proa.linux import signals
from proa.linux.sockets import receive_fds, send_fds
from proa.linux.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Mapping",
    "Mappings",
    "Target",
    "check_mappings",
    "from_child",
    "make",
    "map_tree",
    "outside_id",
]

HIGHEST_ID = (1 << 32) - 2
# The kernel takes so many lines.
_LIMIT = 340


class Mapping(NamedTuple):
    """`size` ids from `inside` are those from `outside`, as the maker of the namespace sees them."""

    inside: int
    outside: int
    size: int


class Mappings(NamedTuple):
    """The maps of a user namespace."""

    uids: tuple[Mapping, ...]
    gids: tuple[Mapping, ...]


class Target(NamedTuple):
    """A user namespace to show files through: a descriptor of it, and what its root is outside, -1 when unknown."""

    fd: int
    uid: int
    gid: int


def check_mappings(mappings: Sequence[Mapping], what: str) -> tuple[Mapping, ...]:
    """Raises Invalid for none, too many, ids out of range, and ranges that overlap on either side."""
    if not 1 <= len(mappings) <= _LIMIT:
        raise Invalid(f"a user namespace needs 1 to {_LIMIT} {what} mappings", code="invalid-mappings")
    for mapping in mappings:
        if mapping.size < 1 or min(mapping) < 0 or max(mapping.inside, mapping.outside) + mapping.size > HIGHEST_ID + 1:
            text = f"{what} mapping {mapping.inside}:{mapping.outside}:{mapping.size} is out of range"
            raise Invalid(text, code="invalid-mappings")
    for start in (0, 1):
        ranges = sorted((mapping[start], mapping.size) for mapping in mappings)
        for (first, size), (second, _) in pairwise(ranges):
            if first + size > second:
                raise Invalid(f"{what} mappings overlap at {second}", code="invalid-mappings")
    return tuple(mappings)


def outside_id(mappings: Sequence[Mapping], inside: int) -> int | None:
    """What an id of the namespace is outside of it; None when it has no mapping."""
    for mapping in mappings:
        if mapping.inside <= inside < mapping.inside + mapping.size:
            return mapping.outside + inside - mapping.inside
    return None


def make(mappings: Mappings) -> int:
    """A descriptor of a new user namespace with these maps; no process is left in it. Raises Invalid, Unsupported."""
    reader, writer = os.pipe()
    mask = signals.pthread_sigmask(signals.SIG_SETMASK, signals.valid_signals())
    try:
        try:
            pid, pidfd = p.clone3(p.CLONE_NEWUSER, exit_signal=int(signals.SIGCHLD))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSPC, errno.EPERM, errno.EUSERS):
                raise _refused(error) from None
            raise
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    finally:
        signals.pthread_sigmask(signals.SIG_SETMASK, mask)
        os.close(reader)
    try:
        for name, maps in (("uid_map", mappings.uids), ("gid_map", mappings.gids)):
            text = "".join(f"{mapping.inside} {mapping.outside} {mapping.size}\n" for mapping in maps)
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            except OSError as error:
                said = text.strip().replace("\n", ", ")
                raise Invalid(
                    f"the kernel refused the {name.replace('_', ' ')} {said}: {error.strerror}",
                    code="mappings-refused",
                    hint="ids outside must be mapped here, too: see /proc/self/uid_map",
                ) from None
            finally:
                os.close(fd)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)
        p.waitid(p.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _refused(error: OSError) -> Unsupported:
    return Unsupported(
        f"this machine makes no user namespace: {error.strerror}",
        code="no-user-namespaces",
        hint="see the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone",
    )


def map_tree(tree: int, userns_fd: int, *, recursive: bool = False) -> None:
    """Show a detached tree of mounts through the namespace's maps. Raises Unsupported where the kernel cannot."""
    try:
        m.mount_setattr(tree, "", attr_set=m.MOUNT_ATTR_IDMAP, userns_fd=userns_fd, recursive=recursive)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
            raise
        raise Unsupported(
            f"this file system cannot be shown with other ids: {error.strerror}",
            code="not-mappable",
            hint="ext4, xfs and btrfs can since Linux 5.15, below overlayfs since 5.19; nobody but its owner may",
        ) from None


def from_child(work: Callable[[], int]) -> int:
    """Run `work` in a child process, for what would change this one for good; returns the descriptor it made.

    Raises what `work` did. Only for single-threaded processes.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    mask = signals.pthread_sigmask(signals.SIG_SETMASK, signals.valid_signals())
    try:
        pid, pidfd = p.clone3(0, exit_signal=int(signals.SIGCHLD))
        if pid == 0:
            _answer(theirs, work)
    finally:
        signals.pthread_sigmask(signals.SIG_SETMASK, mask)
        theirs.close()
    try:
        data, fds = receive_fds(ours, 8192, 1)
    finally:
        ours.close()
        p.waitid(p.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
    if fds:
        return fds[0]
    kind, _, text = data.partition(b" ")
    if kind.isdigit():
        raise OSError(int(kind), os.fsdecode(text))
    raise KINDS.get(kind.decode(), Internal)(os.fsdecode(text) or "a child ended without a word", code="child-failed")


def _answer(channel: _socket.socket, work: Callable[[], int]) -> None:
    try:
        send_fds(channel, b"ok", [work()])
    except ProaError as error:
        channel.send(b"%s %s" % (error.kind.encode(), os.fsencode(error.message)[:4000]))
    except OSError as error:
        channel.send(b"%d %s" % (error.errno or 0, os.fsencode(error.strerror or "")[:4000]))
    except BaseException as error:  # noqa: BLE001 - nothing may leave this function
        channel.send(b"internal " + os.fsencode(f"{type(error).__name__}: {error}")[:4000])
    finally:
        os._exit(0)
