"""The nursery's own process: everything imported, garbage collector frozen, one thread; it only forks.

Each datagram on the channel names an operation and carries one descriptor: a connection on which a forked child
answers. The nursery never sees a request, so its memory stays as it was when it was frozen, and children share it.
After `main` has begun to serve, importing anything is an error here and in every child.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import gc
import os
import select
import signal
import socket
import sys
from array import array
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from typing import NoReturn

import msgspec

from proa.errors import Exhausted, Internal, ProaError
from proa.linux import process
from proa.linux.companion import stand_alone
from proa.linux.process import CLONE_NEWNET, CLONE_NEWUSER
from proa.linux.sockets import send_fds, set_interface_up
from proa.monitor import life, title
from proa.monitor.mounts import hold_mounts
from proa.monitor.protocol import NetnsRequest, encode_line, read_line
from proa.monitor.starting import rehearse
from proa.runtime import userns
from proa.runtime.launching import preload

__all__ = ["main"]

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
# The interpreter specialises code after eight runs; pages of code that is done changing stay shared.
REHEARSALS = 12
REFILL_MS = 30

# Where a container asks for names: the address that Docker's users know.
NAMES_ADDRESS = "127.0.0.11"

_netns_request = msgspec.json.Decoder(NetnsRequest)

_AF_UNIX = int(_socket.AF_UNIX)
_SOCK_SEQPACKET = int(_socket.SOCK_SEQPACKET)
_SOL_SOCKET = int(_socket.SOL_SOCKET)
_SCM_RIGHTS = int(_socket.SCM_RIGHTS)
_CMSG_CLOEXEC = int(_socket.MSG_CMSG_CLOEXEC)
_FD_SIZE = _socket.CMSG_SPACE(4)


class _NoImports:
    """A meta path finder that refuses: whatever a child needs must have been imported before the freeze."""

    @staticmethod
    def find_spec(name: str, *_rest: object) -> ModuleSpec | None:
        os.write(2, f"proa: import of {name} after the nursery froze\n".encode())
        raise ImportError(f"import of {name} after the nursery froze", name=name)


def _netns(connection_fd: int) -> None:
    """Answer with descriptors of a network namespace and what each is, by the names in `nursery.NetworkNamespace`."""
    connection = socket.socket(fileno=connection_fd)
    made: list[tuple[str, int]] = []
    try:
        line, joined = read_line(connection)
        request = _netns_request.decode(line)
        if request.maps is not None:
            made.append(("userns_fd", userns.make(request.maps)))
            process.setns(made[0][1], CLONE_NEWUSER)
        if joined:
            process.setns(joined[0], CLONE_NEWNET)
        else:
            process.unshare(CLONE_NEWNET)
            set_interface_up("lo")
        made.append(("netns_fd", os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)))
        if request.names:
            made += [("udp_fd", _name_socket(socket.SOCK_DGRAM)), ("tcp_fd", _name_socket(socket.SOCK_STREAM))]
        for kind, protocol in (("route_fd", NETLINK_ROUTE), ("netfilter_fd", NETLINK_NETFILTER)):
            try:
                netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            except OSError:
                if protocol == NETLINK_ROUTE:
                    raise
                continue
            made.append((kind, netlink.detach()))
        answer: dict[str, object] = {"ok": [kind for kind, _ in made]}
    except ProaError as error:
        made, answer = [], {"error": error.to_record()}
    except OSError as error:
        made = []
        failure = Exhausted if error.errno in (12, 28) else Internal
        answer = {"error": failure(f"cannot make a network namespace: {error}", code="netns-failed").to_record()}
    send_fds(connection, encode_line(answer), [fd for _, fd in made])


def _name_socket(kind: int) -> int:
    """A socket for name queries; many may be on their way before somebody answers."""
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    made.bind((NAMES_ADDRESS, 0))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made.detach()


def main(channel_fd: int, sealed_fd: int) -> NoReturn:
    """Freeze and serve until the engine closes its end of the channel."""
    title.claim_arguments()
    title.set_title(b"proa nursery", b"proa:nursery")
    os.close(sealed_fd)
    stand_alone()
    os.umask(0o077)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.set_inheritable(channel_fd, False)
    preload()
    for _ in range(REHEARSALS):
        rehearse()
    _freeze()
    _serve(_socket.socket(fileno=channel_fd))


def _serve(channel: _socket.socket) -> NoReturn:
    """Answer requests by forking, until the engine is gone.

    One monitor with its launcher is forked ahead, so that a start need not wait. A page that is written here between
    two forks is one that monitors do not share: hence one flat function on C primitives, as in `waiting`.
    """
    ready = select.poll()
    ready.register(channel, select.POLLIN)
    spare: _socket.socket | None = None
    while True:
        # A new spare is made when nothing else is to do: just after a start its container needs the processors.
        if spare is None and not ready.poll(REFILL_MS):
            spare = _fork_monitor(channel)
            continue
        data, control, _, _ = channel.recvmsg(64, _FD_SIZE, _CMSG_CLOEXEC)
        if not control:
            os._exit(0)
        fds = array("i")
        fds.frombytes(control[0][2])
        if data == b"start":
            handed_over = False
            while not handed_over:
                fresh = spare is None
                if fresh:
                    spare = _fork_monitor(channel)
                if spare is None:
                    break  # no memory; the engine hears it from its connection, which is closed below
                try:
                    spare.sendmsg([data], [(_SOL_SOCKET, _SCM_RIGHTS, fds)])
                    handed_over = True
                except OSError:
                    handed_over = fresh  # somebody killed the spare: another one, once
                spare.close()
                spare = None
        elif os.fork() == 0:
            channel.close()
            _child(partial(_netns if data == b"netns" else hold_mounts, fds[0]))
        os.close(fds[0])


def _fork_monitor(channel: _socket.socket) -> _socket.socket | None:
    """Fork a monitor that waits for a container; returns the socket it takes its orders from, None without memory."""
    ours, theirs = _socket.socketpair(_AF_UNIX, _SOCK_SEQPACKET, 0)
    nursery_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        title.report("nursery", error)
        return None
    if pid == 0:
        channel.close()
        ours.close()
        _child(lambda: life.main(theirs.detach(), nursery_pid))
    theirs.close()
    return ours


def _child(run: Callable[[], None]) -> NoReturn:
    """A forked child's whole life."""
    status = 1
    try:
        _signal.signal(17, 0)  # SIGCHLD, SIG_DFL; signal.signal would look both up in enumerations
        run()
        status = 0
    except BaseException as error:  # noqa: BLE001 - a traceback would import; one line must do
        title.report("nursery child", error)
    finally:
        os._exit(status)


def _freeze() -> None:
    """From here on nothing is imported, and what exists is never looked at by the collector."""
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [_NoImports()]
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)  # what importing left free, page by page
