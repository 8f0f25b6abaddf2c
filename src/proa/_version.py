"""The version, read by the build and by `proa --version`."""

__version__ = "0.1.0"
