"""The unpack worker: one process per layer, confined to the layer's directory, that turns a blob into files.

        engine                                     worker (forked by the zygote)
          |  <-- {"pid"} + pidfd ---------------------  |
          |  --- job + [data, target, inventory] --->   |
          |  --- further fds, the lower layers ------>  |
          |                                             |  chroot, drop privileges, fork the decoder, apply
          |  <-- {"result"} or {"error"} -------------  |
          |  <-- the same once the inventory is written |  _exit

After the chroot nothing is imported, and an error leaves as a record on the socket: an image may hold files under every
path that Python would look at.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

from proa.errors import Internal
from proa.linux.sockets import receive_fds
from proa.storage.layers.apply import apply
from proa.storage.layers.budget import Budget
from proa.storage.layers.confine import confine_decoder, confine_worker
from proa.storage.layers.decompress import CHUNK
from proa.storage.layers.failures import typed
from proa.storage.layers.inventory import write_inventory
from proa.storage.layers.jobs import serve, take, unknown
from proa.storage.layers.pipeline import Decoder

__all__ = ["run"]


def run(sock: socket.socket, zygote_pid: int) -> NoReturn:
    """Do the one job that comes over `sock` and leave the process."""
    serve(
        sock,
        zygote_pid,
        _unpack,
        lambda error: unknown(error, "the unpack worker", memory="layer-memory", other="unpack-worker"),
    )


def _unpack(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """The result, and once more when an inventory was asked for and is written."""
    job, fds = take(sock)
    data_fd, target_fd = fds[:2]
    lower_fds: list[int] = []
    while len(lower_fds) < job["lowers"]:
        _, more = receive_fds(sock, 1)
        if not more:
            raise Internal("unpack worker got too few directories", code="unpack-worker")
        lower_fds += more
    budget = Budget(**job["budget"])
    confine_worker(target_fd, budget.memory_bytes)
    decoder = Decoder(job["compression"], data_fd, budget, confine_decoder) if job["decoded"] else None
    applied = apply(
        iter(decoder) if decoder else iter(lambda: os.read(data_fd, CHUNK), b""),
        target_fd,
        lower_fds,
        budget=budget,
        keep_owner=job["keep_owner"],
        skip_devices=job["skip_devices"],
        prefix=job["prefix"],
        marks=job["marks"],
    )
    result = {
        "diff_id": decoder.digest if decoder else "",
        "tar_bytes": decoder.size if decoder else 0,
        "size_bytes": applied.size_bytes,
        "entries": applied.entries,
        "inodes": applied.inodes,
    }
    yield result
    for inventory_fd in fds[2:]:
        try:
            write_inventory(inventory_fd, target_fd, applied.sums)
        except OSError as error:
            raise typed(error, "") from error
        yield result
