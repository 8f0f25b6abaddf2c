"""Decompress and hash in a process of its own, while the caller parses and writes.

    decoder process                                       worker process
    read blob | decompress | sha256 | -> ring of chunks -> tar reader | files
                 <------------- freed slots -------------

Codecs are the C code that hostile bytes reach first. So the decoder has no capability and no file but the blob and the
ring; a seccomp filter leaves it little more than read, write and memory. It is also twice as fast as threads, which
would share one interpreter lock.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from proa.errors import Exhausted, Internal, ProaError, Unavailable, from_record
from proa.linux.process import PR_SET_PDEATHSIG, prctl
from proa.storage.layers.budget import Budget
from proa.storage.layers.decompress import CHUNK, decompress

__all__ = ["Decoder"]

_SLOTS = 16
_LENGTH = 4
_END = 0xFFFFFFFF
_RECORD_LIMIT = 32 << 10


class Decoder:
    """The uncompressed chunks of a blob, made by a forked process; a chunk is valid until the next is asked for.

    Only for single-threaded processes. After the last chunk `digest` and `size` are those of all of them. Raises what
    `decompress` raises, and Unavailable when the decoder is killed.
    """

    def __init__(
        self, compression: str, data_fd: int, budget: Budget, confine: Callable[[tuple[int, ...]], None]
    ) -> None:
        """confine: called in the new process with the fds that it needs, before it reads the first byte."""
        self.digest = ""
        self.size = 0
        self._ring = mmap.mmap(-1, _SLOTS * CHUNK)
        self._filled, filled = os.pipe()
        free, self._free = os.pipe()
        os.write(self._free, bytes(_SLOTS))
        parent = os.getpid()
        if os.fork() == 0:
            _decode(compression, data_fd, budget, self._ring, free, filled, parent, confine)
        for fd in (filled, free, data_fd):
            os.close(fd)

    def __iter__(self) -> Iterator[memoryview]:
        view = memoryview(self._ring)
        slot = 0
        while (length := int.from_bytes(self._read(_LENGTH), "little")) != _END:
            if not 0 < length <= CHUNK:
                raise Internal("the decoder broke its protocol", code="unpack-worker")
            yield view[slot * CHUNK : slot * CHUNK + length]
            slot = (slot + 1) % _SLOTS
            try:
                os.write(self._free, b"\0")
            except BrokenPipeError:
                pass  # it is done; its last chunks are still to be read
        answer = json.loads(self._read(int.from_bytes(self._read(_LENGTH), "little")))
        if "error" in answer:
            raise from_record(answer["error"])
        self.digest, self.size = answer["digest"], answer["size"]

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if count > _RECORD_LIMIT or not (part := os.read(self._filled, count - len(data))):
                raise Unavailable("the decoder process was killed", code="unpack-worker")
            data += part
        return data


def _decode(
    compression: str,
    data_fd: int,
    budget: Budget,
    ring: mmap.mmap,
    free: int,
    filled: int,
    parent: int,
    confine: Callable[[tuple[int, ...]], None],
) -> NoReturn:
    """The decoder process."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        confine((data_fd, free, filled))
        answer: dict[str, Any]
        try:
            answer = _produce(compression, data_fd, budget, ring, free, filled)
        except ProaError as error:
            answer = {"error": error.to_record()}
        except MemoryError:
            answer = {
                "error": Exhausted("decompressing the layer needs too much memory", code="layer-memory").to_record()
            }
        except OSError as error:
            text = f"cannot read the layer's blob: {os.strerror(error.errno or 0)}"
            answer = {"error": Unavailable(text, code="unpack-worker", errno=error.errno).to_record()}
        record = json.dumps(answer).encode()
        os.write(filled, _END.to_bytes(_LENGTH, "little") + len(record).to_bytes(_LENGTH, "little") + record)
    except BaseException:  # noqa: BLE001 - a traceback would read files of the image
        os._exit(1)
    os._exit(0)


def _produce(compression: str, data_fd: int, budget: Budget, ring: mmap.mmap, free: int, filled: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = slot = tokens = 0
    for chunk in decompress(compression, lambda count: os.read(data_fd, count), budget):
        digest.update(chunk)
        size += len(chunk)
        if not tokens:
            tokens = len(os.read(free, _SLOTS))
            if not tokens:
                os._exit(1)  # nobody listens any more
        tokens -= 1
        start = slot * CHUNK
        ring[start : start + len(chunk)] = chunk
        slot = (slot + 1) % _SLOTS
        os.write(filled, len(chunk).to_bytes(_LENGTH, "little"))
    return {"digest": "sha256:" + digest.hexdigest(), "size": size}
