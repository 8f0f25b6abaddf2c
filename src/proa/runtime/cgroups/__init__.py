"""Account for and limit what a container's processes use: cgroups of version 2, version 1 and the hybrid of both."""

from __future__ import annotations

TYPE_CHECKING = False  # `proa-runtime delete` needs nothing but `control_files`
if TYPE_CHECKING:
    from typing import Any

    from proa.runtime.cgroups.cgroup import Cgroup, Stats
    from proa.runtime.cgroups.hierarchy import hierarchies
    from proa.runtime.cgroups.making import create, in_directories, open_existing, rehearse

__all__ = [
    "Cgroup",
    "Stats",
    "create",
    "hierarchies",
    "in_directories",
    "open_existing",
    "rehearse",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from proa.runtime.cgroups import making

    # All at once: importing the module of that name has just made `hierarchies` the module.
    globals().update({public: getattr(making, public) for public in __all__})
    return globals()[name]
