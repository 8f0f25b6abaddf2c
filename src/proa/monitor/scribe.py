"""The short-lived child in which a waiting monitor logs output that nobody else wants.

It reports, when the output falls silent or the monitor asks: `+` or, when an output ended, `-`, then the unfinished
lines as JSON; they are the next scribe's, or the `Container`'s, to complete.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import msgspec

from proa.monitor.log_drivers import open_log
from proa.monitor.logs import LineLog
from proa.monitor.loop import READ, Loop
from proa.monitor.starting import Handoff, take
from proa.monitor.streams import Streams

__all__ = ["open_container_log", "write_log"]

_decoder = msgspec.json.Decoder(dict[str, bytes])
_encoder = msgspec.json.Encoder()


def open_container_log(handoff: Handoff, report: bytes) -> LineLog | None:
    """The container's log, with the unfinished lines of the last scribe's report; None without a log."""
    request = handoff.request
    log = open_log(request.log, request.dir, request.id)
    if report and log is not None:
        log.unfinished = _decoder.decode(report[1:])
    return log


def write_log(message: bytes, fds: Sequence[int], report: bytes, channel: socket.socket) -> None:
    """In the scribe: log the container's output until it pauses or ends, or the monitor shuts the channel down."""
    handoff, taken = take(message, fds)
    loop = Loop()
    log = open_container_log(handoff, report)
    streams = Streams(loop, taken.outputs, -1, tty=handoff.request.tty, log=log)
    before = len(taken.outputs)
    done: list[bool] = []
    loop.watch(channel.fileno(), READ, lambda _events: done.append(True))

    def rest() -> None:
        streams.settle()
        done.append(True)

    loop.when_idle(rest)
    while not done and len(taken.outputs) == before:
        loop.turn()
    unfinished = log.unfinished if log is not None else {}
    channel.sendall((b"+" if len(taken.outputs) == before else b"-") + _encoder.encode(unfinished))
