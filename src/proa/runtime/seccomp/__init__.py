"""System call filters: Docker's default profile as data, and a compiler from OCI profiles to BPF."""

from __future__ import annotations

from proa.linux._libc import MACHINE
from proa.runtime.defaults import ALL_CAPABILITIES
from proa.runtime.seccomp.compiler import CompiledFilter, compile_filter
from proa.runtime.seccomp.profile import default_profile

__all__ = ["CompiledFilter", "compile_filter", "default_filter", "default_profile"]


_default_filters: dict[int, CompiledFilter] = {}
_MOST = 32


def default_filter(bounding: int) -> CompiledFilter:
    """The compiled default profile for a bounding set given as a mask; kept for the next time."""
    found = _default_filters.get(bounding)
    if found is None:
        if len(_default_filters) >= _MOST:
            _default_filters.clear()
        names = {name for number, name in enumerate(ALL_CAPABILITIES) if bounding >> number & 1}
        found = _default_filters[bounding] = compile_filter(default_profile(names, MACHINE))
    return found
