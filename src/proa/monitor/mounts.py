"""Hold the mounts of a container that does not run, so that files can be copied out of it and into it.

A forked child of the nursery makes them in a mount namespace of its own and waits; who joins that namespace by the
child's pidfd sees the container's root. Nothing is mounted on the host, and with the child all of it is gone.

    engine -- order: {"config", "rootfs"} -->  child
           <-- "R" + pidfd, or "E" + error --
           … closes the connection ---------->  ends
"""

from __future__ import annotations

import os
import signal
import socket

import msgspec

from proa.errors import Invalid
from proa.linux import process as p
from proa.linux.sockets import send_fds
from proa.monitor import title
from proa.monitor.protocol import read_line
from proa.runtime.channel import Channel
from proa.runtime.plan import compile_root
from proa.runtime.steps.step import Init

__all__ = ["MountsOrder", "hold_mounts"]


class MountsOrder(msgspec.Struct):
    """What to mount: of a config.json its `root` and `mounts`, and the mounts of the root file system."""

    config: dict[str, object]
    rootfs: list[dict[str, object]]


_decoder = msgspec.json.Decoder(MountsOrder)


def hold_mounts(connection_fd: int) -> None:
    """In the child: make the mounts, tell, and keep them until the engine closes the connection."""
    connection = socket.socket(fileno=connection_fd)
    channel = Channel(connection)
    title.set_title(b"proa mounts", b"proa:mounts")
    p.prctl(p.PR_SET_PDEATHSIG, signal.SIGKILL)
    step = None
    try:
        line, _ = read_line(connection)
        try:
            order = _decoder.decode(line)
        except msgspec.DecodeError as error:
            raise Invalid(f"invalid order: {error}", code="invalid-monitor-request") from error
        steps = compile_root(order.config, order.rootfs)
        p.unshare(p.CLONE_NEWNS)
        init = Init(channel, {})
        for step in steps:
            step.execute(init)
    except ConnectionError:
        return
    except Exception as error:  # noqa: BLE001 - whatever it was, the engine must hear of it
        channel.fail(step.name if step else "reading the order", step.subject if step else "", error)
        return
    pidfd = os.pidfd_open(os.getpid())
    send_fds(connection, b"R", [pidfd])
    os.close(pidfd)
    while connection.recv(64):
        pass
