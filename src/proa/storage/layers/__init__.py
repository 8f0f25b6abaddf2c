"""Turn layer archives into directories and directories into layer archives.

`Unpacker` does it in confined worker processes; everything below it (`reader`, `apply`, `decompress`) is plain code on
file descriptors. The other way: `diff` writes what changed in an overlay's upper directory as a layer, `tar_tree` a
whole file system, `CompressedLayerWriter` compresses and digests in the same pass. Names here are loaded when used:
the worker processes import this package too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
    from proa.storage.layers.changes import DiffResult, diff, tar_directory, tar_tree
    from proa.storage.layers.compress import CompressedLayer, CompressedLayerWriter
    from proa.storage.layers.unpacker import Unpacker, UnpackResult
    from proa.storage.layers.workers import Workers

_HOME = {
    "Budget": "budget",
    "CompressedLayer": "compress",
    "CompressedLayerWriter": "compress",
    "DEFAULT_BUDGET": "budget",
    "DiffResult": "changes",
    "UnpackResult": "unpacker",
    "Unpacker": "unpacker",
    "Workers": "workers",
    "diff": "changes",
    "tar_directory": "changes",
    "tar_tree": "changes",
}

__all__ = [
    "Unpacker",
    "UnpackResult",
    "Workers",
    "Budget",
    "DEFAULT_BUDGET",
    "diff",
    "tar_directory",
    "tar_tree",
    "DiffResult",
    "CompressedLayerWriter",
    "CompressedLayer",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
