"""Images mounted into containers: an overlay of the layers, with nothing to write to."""

from __future__ import annotations

import os

from proa.linux import mount as m
from proa.runtime.mount_options import MountOptions
from proa.runtime.steps.mounts import OnDestination, attach, open_subpath
from proa.runtime.steps.rootfs import mount_overlay
from proa.runtime.steps.step import Init

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class MountOverlay(OnDestination):
    """Mount an overlay of layer directories, or a part of it, on `destination`.

    layers: overlay's options, as a snapshotter writes them; options: everything else.
    """

    __slots__ = ("layers",)
    name = "mounting an image"

    def __init__(self, destination: str, layers: Sequence[str], options: MountOptions) -> None:
        super().__init__(destination, options)
        self.layers = tuple(layers)

    def describe(self) -> str:
        return f"mount the overlay {','.join(self.layers)} on {self.destination} (read-only)"

    def execute(self, init: Init) -> None:
        tree = mount_overlay(self.layers)
        if self.options.subpath:
            whole = tree
            try:
                tree = open_subpath(whole, self.options.subpath, m.OPEN_TREE_CLONE, self.destination)
            finally:
                os.close(whole)
        attach(init, tree, self.destination, self.options)
