"""The listening socket, and systemd's two protocols around it: socket activation and readiness.

Sources: sd_listen_fds(3), sd_notify(3), unix(7).
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from proa.errors import Invalid, Unavailable
from proa.linux.process import in_user_namespace

FIRST_FD = 3
#: Members may use the engine, which makes them as mighty as root: the group Docker's packages make for that.
GROUP = "docker"
BACKLOG = 1024


def inherited_socket() -> socket.socket | None:
    """The unix socket systemd listens on for us, or None. Raises Invalid when it passed something else."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()) or int(count) < 1:
        return None
    if int(count) > 1:
        raise Invalid(f"socket activation passed {count} sockets, one is wanted", code="activation-invalid")
    os.set_inheritable(FIRST_FD, False)
    listener = socket.socket(fileno=FIRST_FD)
    if listener.family != socket.AF_UNIX or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise Invalid("socket activation passed no listening unix socket", code="activation-invalid")
    return listener


def bind(path: Path) -> socket.socket:
    """Listen at `path`, mode 0660 for the group. Raises what `listen` does."""
    return listen(path, _admit_group)


def listen(path: Path, admit: Callable[[Path], None]) -> socket.socket:
    """Listen at `path` once `admit` set its owner and mode; a socket nobody answers on is replaced.

    Call with the data root locked. Raises Unavailable when somebody answers there, Invalid for an impossible path.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        try:
            listener.bind(str(path))
        except OSError as e:
            # 108 bytes including the final zero, less for some: unix(7).
            reason = "the path is too long" if "too long" in str(e) else os.strerror(e.errno or errno.EINVAL)
            raise Invalid(f"cannot listen at {path}: {reason}", code="socket-path", subject=str(path)) from None
        admit(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove a dead socket; never anything else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Invalid(f"cannot listen at {path}: there is something that is no socket", code="socket-path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # alive and too busy to accept
    raise Unavailable(f"another engine serves {path}", code="socket-in-use", subject=str(path))


def _admit_group(path: Path) -> None:
    """Mode 0660, and the way there: the run directory may be passed through, not read, by the group."""
    if os.geteuid() == 0 and not in_user_namespace():
        try:
            group = grp.getgrnam(GROUP).gr_gid
        except KeyError:
            group = 0
        os.chown(path, 0, group)
        directory = path.parent.stat()
        # Only a directory that is ours alone: in a shared one (/tmp, /run) the path is somebody else's to open.
        if group and directory.st_uid == 0 and stat.S_IMODE(directory.st_mode) == 0o700:
            os.chown(path.parent, 0, group)
            path.parent.chmod(0o710)
    path.chmod(0o660)


def notify(state: str) -> None:
    """Tell the service manager, if there is one, e.g. `READY=1`. Never fails: the engine works without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError:
        pass
