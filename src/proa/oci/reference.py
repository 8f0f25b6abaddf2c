"""References: `registry/repository:tag@digest` (distribution-spec, "Pulling manifests"; Docker's short forms)."""

from __future__ import annotations

import re

import msgspec

from proa.errors import Invalid
from proa.oci.digest import Digest, parse_digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_HUB_ALIASES = {
    "index.docker.io": "docker.io",
    "registry-1.docker.io": "docker.io",
    "registry.hub.docker.com": "docker.io",
}

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_ID = re.compile(r"[0-9a-f]{64}")
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed image reference; `repository` has no registry in it."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The one canonical spelling: `docker.io/library/busybox:latest`, with the digest if there is one."""
        out = f"{self.registry}/{self.repository}"
        if self.tag:
            out += f":{self.tag}"
        if self.digest:
            out += f"@{self.digest}"
        return out

    @property
    def familiar(self) -> str:
        """As users of Docker write it: `busybox:latest`."""
        out = self.familiar_repository
        if self.tag:
            out += f":{self.tag}"
        if self.digest:
            out += f"@{self.digest}"
        return out

    @property
    def familiar_repository(self) -> str:
        """Registry and repository without what Docker leaves out, unless that would read as something else."""
        if self.registry != DEFAULT_REGISTRY:
            return f"{self.registry}/{self.repository}"
        first, _, rest = self.repository.partition("/")
        if first == "library" and "/" not in rest and not _ID.fullmatch(rest):
            return rest
        return f"{self.registry}/{self.repository}" if names_registry(first) else self.repository

    @property
    def object(self) -> str:
        """What to ask the registry for: the digest, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG


def names_registry(first: str) -> bool:
    """Whether the part before the first slash is a host rather than a repository's beginning: Docker's rule."""
    return "." in first or ":" in first or first == "localhost" or first.lower() != first or first[:1] == "["


def parse_reference(text: str) -> Reference:
    """Parse what a user or client wrote; without tag and digest the tag is `latest`. Raises Invalid."""

    def bad(why: str) -> Invalid:
        return Invalid(f"invalid reference format: {text[:200]!r}: {why}", code="reference-invalid", subject=text[:200])

    if not text or len(text) > 4096:
        raise bad("empty or too long")
    rest, at, digest_text = text.partition("@")
    digest = parse_digest(digest_text) if at else None
    first, slash, tail = rest.partition("/")
    if slash and names_registry(first):
        registry, path = first, tail
    else:
        registry, path = DEFAULT_REGISTRY, rest
    if _REGISTRY.fullmatch(registry) is None:
        raise bad("the registry is no host name")
    registry = _HUB_ALIASES.get(registry, registry)
    repository, colon, tag = path.partition(":")
    if colon and _TAG.fullmatch(tag) is None:
        raise bad("the tag may have 128 letters, digits, dots, dashes and underscores")
    if repository != repository.lower():
        raise Invalid(
            f"invalid reference format: repository name ({repository[:200]}) must be lowercase",
            code="reference-invalid",
            subject=text[:200],
        )
    if _REPOSITORY.fullmatch(repository) is None:
        raise bad("the repository is malformed")
    if registry == DEFAULT_REGISTRY:
        if "/" not in repository:
            repository = f"library/{repository}"
        if _ID.fullmatch(path):
            raise bad("64 hexadecimal digits are an ID, not a name")
    if len(registry) + 1 + len(repository) > 255:
        raise bad("registry and repository exceed 255 characters")
    return Reference(
        registry=registry, repository=repository, tag=tag or (None if digest else DEFAULT_TAG), digest=digest
    )
