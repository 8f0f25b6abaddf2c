"""proa: a container engine you install with pip."""

from proa._version import __version__

__all__ = ["__version__"]
