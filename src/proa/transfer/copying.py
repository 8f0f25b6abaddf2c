"""The one verb: move an image, children before parents, from a source to a sink."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from proa.oci import Descriptor, Platform, children, media_types, parse_index, select_platform
from proa.transfer.ends import Sink, Source
from proa.transfer.parallel import JOBS, run_parallel
from proa.transfer.progress import Meter, Progress, ProgressEvent, one_at_a_time, short_id, silent


def copy(
    source: Source,
    sink: Sink,
    descriptor: Descriptor | None = None,
    *,
    platform: Platform | None = None,
    progress: Progress = silent,
    stopped: threading.Event | None = None,
    jobs: int = JOBS,
    words: tuple[str, str] = ("Copying", "Copied"),
) -> Descriptor:
    """Copy `descriptor` (default: the source's root) with everything it refers to; returns what became the root.

    platform: of an index, copy only this platform's manifest, which then is the root
    progress: called from several threads, one at a time
    words:    what it says of a blob under way, and of one that has moved
    stopped:  set it to cancel; what is complete stays in the sink, a partial blob waits to be resumed
    Raises what the ends raise, and NotFound (`platform-not-found`, its hint lists the platforms there are).
    """
    progress = one_at_a_time(progress)
    root = descriptor or source.resolve()
    raw = source.read(root)
    if media_types.is_index(root.media_type) and platform is not None:
        root = select_platform(parse_index(raw, root.media_type), platform)
        raw = source.read(root)

    def stop() -> None:
        source.stop()
        sink.stop()

    task = _Copy(source, sink, progress, stopped, stop, jobs, words)
    _copy_children(task, root, raw)
    sink.tag(root, raw)
    return root


class _Copy(NamedTuple):
    source: Source
    sink: Sink
    progress: Progress
    stopped: threading.Event | None
    stop: Callable[[], None]
    jobs: int
    words: tuple[str, str]


def _copy_children(task: _Copy, parent: Descriptor, raw: bytes) -> None:
    blobs = []
    for child in unique(children(parent, raw)):
        if media_types.is_document(child.media_type):
            document = task.source.read(child)
            _copy_children(task, child, document)
            task.sink.put(child, document)
        elif not child.urls:  # a foreign layer stays where its publisher keeps it, and is never fetched from there
            blobs.append(child)
    tasks = [partial(_copy_blob, task, blob) for blob in blobs]
    run_parallel(tasks, width=task.jobs, stopped=task.stopped, stop=task.stop)


def _copy_blob(task: _Copy, blob: Descriptor) -> None:
    name = short_id(blob.digest)
    meter = Meter(task.progress, task.words[0], name, blob.size)
    moved = task.sink.write(blob, task.source, meter.at)
    task.progress(ProgressEvent(status=task.words[1] if moved else "Already exists", id=name))


def unique(descriptors: Sequence[Descriptor]) -> list[Descriptor]:
    """`descriptors` in order without repeated digests: an image may have one layer many times."""
    return list({d.digest: d for d in descriptors}.values())
