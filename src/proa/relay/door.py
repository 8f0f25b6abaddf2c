"""Doors: the sockets at which published ports are open, and the process that opens them where their clients are.

    engine of an ordinary user, in its own network namespace      door keeper, in the user's
    "tcp 192.0.2.7 8080" ----------------------------------------> bind, listen
                         <---------------------------------------- "0" and the socket, or the errno

A socket belongs to the network namespace it was made in, wherever it is used afterwards; so the keeper makes them and
has nothing else to do. It has no more rights than the user, and ends with the engine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import NoReturn

from proa.linux.companion import stand_alone
from proa.linux.sockets import receive_fds, send_fds

__all__ = ["REQUEST_BYTES", "keep_doors", "open_door"]

REQUEST_BYTES = 256
BACKLOG = 1024
_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
# Where the network header begins for a socket's filter (linux/filter.h), and the destination within IPv6's.
_SKF_NET_OFF = 0xFFF00000
_IPV6_DESTINATION = 24


def open_door(protocol: str, host_ip: str, port: int, *, only_loopback: bool = False) -> socket.socket:
    """A bound socket, for tcp a listening one; port 0: one that the kernel chooses. Raises OSError.

    only_loopback: at `::`, take only what is sent to ::1.
    """
    tcp = protocol == "tcp"
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    door = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if only_loopback:
            program = ctypes.create_string_buffer(_to_loopback())
            length = len(program) // _INSTRUCTION.size
            door.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length, ctypes.addressof(program)))
        if tcp and port:
            # Connections of an earlier listener in TIME_WAIT must not keep the port from us.
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host_ip, port))
        if tcp:
            door.listen(BACKLOG)
    except BaseException:
        door.close()
        raise
    return door


def _to_loopback() -> bytes:
    """A classic BPF program that lets pass what is sent to ::1."""
    words = (0, 0, 0, 1)
    program = b""
    for number, word in enumerate(words):
        program += _INSTRUCTION.pack(_LOAD, 0, 0, _SKF_NET_OFF + _IPV6_DESTINATION + 4 * number)
        # A word that differs jumps over the rest, to the last instruction.
        program += _INSTRUCTION.pack(_EQUAL, 0, 2 * (len(words) - number - 1) + 1, word)
    return program + _INSTRUCTION.pack(_RETURN, 0, 0, 0xFFFFFFFF) + _INSTRUCTION.pack(_RETURN, 0, 0, 0)


def keep_doors(channel_fd: int) -> NoReturn:
    """Open doors as asked, one message after the other, until the engine has gone."""
    stand_alone()
    with socket.socket(fileno=channel_fd) as channel:
        while True:
            try:
                data, fds = receive_fds(channel, REQUEST_BYTES, 0)
            except OSError:
                break
            for fd in fds:
                os.close(fd)
            if not data:
                break
            protocol, host_ip, port = data.decode().split()
            try:
                with open_door(protocol, host_ip, int(port)) as door:
                    send_fds(channel, b"0", [door.fileno()])
            except OSError as error:
                try:
                    channel.send(str(error.errno or 1).encode())
                except OSError:
                    break
    os._exit(0)
