"""The nursery's own process: everything imported, garbage collector frozen, one thread; it only forks.

Each datagram on the channel names an operation and carries one descriptor: a connection on which a forked child
answers. The nursery never sees a request, so its memory stays as it was when it was frozen, and children share it.
After `main` has begun to serve, importing anything is an error here and in every child.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from typing import NoReturn

from proa.errors import Exhausted, Internal, ProaError
from proa.linux import files, process
from proa.linux.process import CLONE_NEWNET, PR_SET_DUMPABLE
from proa.linux.sockets import receive_fds, send_fds, set_interface_up
from proa.monitor import container, title
from proa.monitor.protocol import encode_line
from proa.runtime.launching import preload

__all__ = ["OPERATIONS", "main"]

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12


class _NoImports:
    """A meta path finder that refuses: whatever a child needs must have been imported before the freeze."""

    @staticmethod
    def find_spec(name: str, *_rest: object) -> ModuleSpec | None:
        os.write(2, f"proa: import of {name} after the nursery froze\n".encode())
        raise ImportError(f"import of {name} after the nursery froze", name=name)


def _start(connection: socket.socket) -> None:
    container.main(connection)


def _netns(connection: socket.socket) -> None:
    """Answer with descriptors of a new network namespace: nsfs, route socket, netfilter socket if there is one."""
    try:
        process.unshare(CLONE_NEWNET)
        set_interface_up("lo")
        fds = [os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)]
        for protocol in (NETLINK_ROUTE, NETLINK_NETFILTER):
            try:
                netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            except OSError:
                if protocol == NETLINK_ROUTE:
                    raise
                continue
            fds.append(netlink.detach())
        answer: dict[str, object] = {"ok": {}}
    except OSError as error:
        fds = []
        failure = Exhausted if error.errno in (12, 28) else Internal
        answer = {"error": failure(f"cannot make a network namespace: {error}", code="netns-failed").to_record()}
    send_fds(connection, encode_line(answer), fds)


OPERATIONS: dict[bytes, Callable[[socket.socket], None]] = {b"start": _start, b"netns": _netns}


def main(channel_fd: int, sealed_fd: int) -> NoReturn:
    """Freeze and serve until the engine closes its end of the channel."""
    title.set_title("proa nursery", "proa:nursery")
    os.close(sealed_fd)
    os.chdir("/")
    os.umask(0o077)
    process.prctl(PR_SET_DUMPABLE, 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)
    preload()
    _freeze()
    while True:
        data, fds = receive_fds(channel, 64, 1)
        if not data:
            os._exit(0)
        _serve(channel, data, fds)


def _freeze() -> None:
    """From here on nothing is imported, and what exists is never looked at by the collector."""
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [_NoImports()]
    gc.collect()
    gc.freeze()


def _serve(channel: socket.socket, operation: bytes, fds: Sequence[int]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        pid = -1
        answer: ProaError = Exhausted(f"cannot fork a process: {error.strerror}", code="fork-failed")
        for fd in fds:
            os.write(fd, encode_line({"event": "failed", "error": answer.to_record()}))
    if pid == 0:
        _child(channel, operation, fds)
    for fd in fds:
        os.close(fd)


def _child(channel: socket.socket, operation: bytes, fds: Sequence[int]) -> NoReturn:
    status = 1
    try:
        channel.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if len(fds) == 1:
            OPERATIONS[operation](socket.socket(fileno=fds[0]))
            status = 0
    except BaseException as error:  # noqa: BLE001 - a traceback would import; one line must do
        title.report(operation.decode("ascii", "replace"), error)
    finally:
        os._exit(status)


# `files` is used by every launch; naming it here keeps it among what is frozen.
_ = files
