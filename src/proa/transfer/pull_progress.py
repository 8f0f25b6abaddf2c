"""The lines of a pull, one per layer, in Docker's order although downloading and unpacking overlap."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from proa.oci import Descriptor, Digest
from proa.transfer.progress import Meter, Progress, ProgressEvent, short_id

_POLL_S = 0.02


class LayerLines:
    """Report each layer: Pulling fs layer, Downloading, Download complete, Extracting, Pull complete.

    A terminal shows the last line of each layer, so Extracting is told only when the download is complete.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.RLock()
        self._downloads: dict[Digest, Meter] = {}
        self._extractions: dict[Digest, Meter] = {}
        self._complete: set[Digest] = set()
        self._unpacked: set[Digest] = set()
        self._closed: set[Digest] = set()

    def begin(
        self, layers: Sequence[Descriptor], there: Collection[Digest], unpacked: Collection[Digest], width: int
    ) -> None:
        """Announce the layers: those that are `there` in full, and `unpacked`, need no more lines."""
        waiting = 0
        for layer in layers:
            self._downloads[layer.digest] = Meter(self._progress, "Downloading", short_id(layer.digest), layer.size)
            self._extractions[layer.digest] = Meter(self._progress, "Extracting", short_id(layer.digest), layer.size)
            if layer.digest in there:
                self._complete.add(layer.digest)
            if layer.digest in there and layer.digest in unpacked:
                self._closed.add(layer.digest)
                self._say("Already exists", layer)
                continue
            self._say("Pulling fs layer", layer)
            if layer.digest not in there:
                waiting += 1
                if waiting > width:
                    self._say("Waiting", layer)

    def downloading(self, layer: Descriptor, current: int) -> None:
        """So many bytes of `layer` are there."""
        with self._lock:
            self._downloads[layer.digest].at(current)

    def downloaded(self, layer: Descriptor) -> None:
        """`layer` is complete and verified."""
        with self._lock:
            self._complete.add(layer.digest)
            self._say("Verifying Checksum", layer)
            self._say("Download complete", layer)
            self._close(layer)

    def await_download(self, layer: Descriptor, stopped: threading.Event) -> bool:
        """Wait until `layer` is complete and verified: True; False when the transfer stopped before."""
        while layer.digest not in self._complete:
            if stopped.wait(_POLL_S):
                return False
        return True

    def extracting(self, layer: Descriptor, count: int) -> None:
        """So many more bytes of `layer` went to the unpacker."""
        with self._lock:
            meter = self._extractions[layer.digest]
            if layer.digest in self._complete:
                meter.add(count)
            else:
                meter.current += count

    def unpack_status(self, layer: Descriptor, status: str) -> None:
        """What storage.unpack_image reports."""
        if status != "unpacking":
            with self._lock:
                self._unpacked.add(layer.digest)
                self._close(layer)

    def _close(self, layer: Descriptor) -> None:
        if layer.digest in self._complete and layer.digest in self._unpacked and layer.digest not in self._closed:
            self._closed.add(layer.digest)
            self._say("Pull complete", layer)

    def _say(self, status: str, layer: Descriptor) -> None:
        with self._lock:
            self._progress(ProgressEvent(status=status, id=short_id(layer.digest)))
