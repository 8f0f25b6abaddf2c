"""Short names: which registry a name without one means. With Docker it is docker.io; an administrator may differ.

busybox          an alias if there is one, else DEFAULT-REGISTRY/busybox
team/app:1       likewise: `team` is no host
host.lan/app     says it already
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from proa.errors import Invalid
from proa.oci.reference import DEFAULT_REGISTRY, Reference, names_registry, parse_reference


class ShortNames(msgspec.Struct, frozen=True, kw_only=True):
    """How names without a registry are read and written.

    aliases: short repository -> registry/repository, neither with a tag
    """

    default_registry: str = DEFAULT_REGISTRY
    aliases: Mapping[str, str] = {}

    def check(self) -> None:
        """Raise Invalid for a default registry or an alias that cannot be."""
        if not names_registry(self.default_registry) or "/" in self.default_registry:
            raise Invalid(
                f"default registry {self.default_registry!r} is no host name with a dot or port, nor localhost",
                code="reference-invalid",
            )
        parse_reference(f"{self.default_registry}/x")
        for short, full in self.aliases.items():
            for name in (short, full):
                if re.search(r"[:@][^/]*$", name):
                    raise Invalid(f"alias {short!r} = {full!r} has a tag or digest", code="reference-invalid")
                parse_reference(name)
            if _has_registry(short) or not _has_registry(full):
                raise Invalid(
                    f"alias {short!r} = {full!r}: want a name without registry = one with it", code="reference-invalid"
                )

    def parse(self, text: str) -> Reference:
        """What a user wrote, as a full reference; without tag and digest the tag is `latest`. Raises Invalid."""
        docker = parse_reference(text)
        if (not self.aliases and self.default_registry == DEFAULT_REGISTRY) or _has_registry(text):
            return docker
        short = re.split("[:@]", text, maxsplit=1)[0]
        full = self.aliases.get(short, f"{self.default_registry}/{short}")
        return parse_reference(full + text[len(short) :])

    def familiar(self, reference: Reference) -> str:
        """The shortest spelling that `parse` reads as this reference."""
        return self._shortest(reference, reference.familiar, reference.name)

    def familiar_repository(self, reference: Reference) -> str:
        """The same without tag and digest."""
        bare = Reference(registry=reference.registry, repository=reference.repository)
        return self._shortest(bare, reference.familiar_repository, bare.name)

    def _shortest(self, reference: Reference, docker: str, full: str) -> str:
        read = self.parse(docker)
        same = (read.registry, read.repository) == (reference.registry, reference.repository)
        return docker if same else full


def _has_registry(text: str) -> bool:
    first, slash, _ = text.partition("/")
    return bool(slash) and names_registry(first)


DOCKER_NAMES = ShortNames()
