"""Just enough of image names for a client: where the tag begins and which registry is meant."""

from __future__ import annotations

__all__ = ["DOCKER_HUB", "has_registry", "registry_of", "split_tag"]

DOCKER_HUB = "https://index.docker.io/v1/"  # the key Docker's configuration uses for it


def split_tag(name: str, default: str = "") -> tuple[str, str]:
    """`host:5000/a/b:1` as (`host:5000/a/b`, `1`); a digest counts as the tag."""
    repository, mark, digest = name.partition("@")
    if mark:
        return repository, digest
    front, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return front + slash + last, tag or default


def registry_of(name: str) -> str:
    """`host:5000` of an image's name, or Docker Hub's key."""
    first = name.partition("/")[0]
    if has_registry(name):
        return DOCKER_HUB if first in ("docker.io", "index.docker.io") else first
    return DOCKER_HUB


def has_registry(name: str) -> bool:
    """Whether a name says which registry it is in: Docker's rule for the part before the first slash."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
