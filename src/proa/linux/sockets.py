"""Unix sockets that carry file descriptors and know their peer (unix(7)), and the loopback interface (netdevice(7))."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from proa.linux.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SCM_MAX_FD = 253
# Of `_socket`, not `socket`: plain integers (arithmetic on the enumerations costs more than the system calls here), and
# 8 ms less to import. Every `socket.socket` is one of its sockets.
_SOL_SOCKET = _socket.SOL_SOCKET
_SCM_RIGHTS = _socket.SCM_RIGHTS
_CMSG_CLOEXEC = _socket.MSG_CMSG_CLOEXEC
_CUT_OFF = _socket.MSG_CTRUNC | _socket.MSG_TRUNC
_FD_BYTES = 4
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


def peer(sock: _socket.socket) -> Peer:
    """SO_PEERCRED of a connected unix socket."""
    return Peer(*_UCRED.unpack(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)))


def send_fds(sock: _socket.socket, data: bytes | bytearray | memoryview, fds: Sequence[int]) -> int:
    """Send `data` (at least one byte) and copies of `fds`; returns the count of bytes sent."""
    return sock.sendmsg([data], [(_SOL_SOCKET, _SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else [])


def connect_and_send(path: str, data: bytes, fds: Sequence[int]) -> None:
    """Send `data` and copies of `fds` to whoever listens on a stream socket. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
        send_fds(sock, data, fds)
    finally:
        sock.close()


def receive_fds(sock: _socket.socket, size: int, max_fds: int = SCM_MAX_FD, flags: int = 0) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and the fds sent with them, all close-on-exec.

    Raises OSError(EMSGSIZE) and closes what came when fds or data were cut off.
    """
    fds: list[int] = []
    room = _socket.CMSG_SPACE(max_fds * _FD_BYTES) if max_fds else 0
    data, control, message_flags, _ = sock.recvmsg(size, room, flags | _CMSG_CLOEXEC)
    for level, kind, payload in control:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            count = len(payload) // _FD_BYTES
            fds += struct.unpack_from(f"{count}i", payload)
    if message_flags & _CUT_OFF:
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMSGSIZE, "recvmsg: message cut off")
    return data, fds


def set_interface_up(name: str) -> None:
    """Bring an interface of this network namespace up."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = _IFREQ.pack(name.encode(), 0)
        flags = _IFREQ.unpack(fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))
    finally:
        sock.close()
