"""Unix sockets that carry file descriptors and know their peer (unix(7)), and the loopback interface (netdevice(7))."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

SCM_MAX_FD = 253
# Plain integers: arithmetic on the socket module's flag enumerations costs more than the system calls here.
_SOL_SOCKET = int(socket.SOL_SOCKET)
_SCM_RIGHTS = int(socket.SCM_RIGHTS)
_CMSG_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT_OFF = int(socket.MSG_CTRUNC) | int(socket.MSG_TRUNC)
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
# struct ifreq: char name[16]; short flags; padding to 40 bytes
_IFREQ = struct.Struct("=16sh22x")
# struct ucred { pid_t pid; uid_t uid; gid_t gid; }
_UCRED = struct.Struct("=iII")


class Peer(NamedTuple):
    """Who is at the other end of a unix socket, as of connect or listen."""

    pid: int
    uid: int
    gid: int


def peer(sock: socket.socket) -> Peer:
    """SO_PEERCRED of a connected unix socket."""
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def send_fds(sock: socket.socket, data: bytes | bytearray | memoryview, fds: Sequence[int]) -> int:
    """Send `data` (at least one byte) and copies of `fds`; returns the count of bytes sent."""
    return sock.sendmsg([data], [(_SOL_SOCKET, _SCM_RIGHTS, array.array("i", fds))] if fds else [])


def receive_fds(sock: socket.socket, size: int, max_fds: int = SCM_MAX_FD, flags: int = 0) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and the fds sent with them, all close-on-exec.

    Raises OSError(EMSGSIZE) and closes what came when fds or data were cut off.
    """
    fds = array.array("i")
    room = socket.CMSG_SPACE(max_fds * fds.itemsize) if max_fds else 0
    data, control, message_flags, _ = sock.recvmsg(size, room, flags | _CMSG_CLOEXEC)
    for level, kind, payload in control:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if message_flags & _CUT_OFF:
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMSGSIZE, "recvmsg: message cut off")
    return data, list(fds)


def set_interface_up(name: str) -> None:
    """Bring an interface of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = _IFREQ.pack(name.encode(), 0)
        flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))
