"""Images where they are: look at, copy, list and delete what registries have, without storing any of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from proa import transfer
from proa.errors import Invalid
from proa.oci import Descriptor, Reference, parse_platform
from proa.transfer import Credentials, Progress, Remote
from proa.transfer.progress import ProgressEvent, silent

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.transfer.inspecting import RemoteImage
    from proa.transfer.searching import Found


class RemoteImages:
    """What an engine does at registries by itself; names are read as its configuration says."""

    def __init__(self, engine: Engine) -> None:
        self._names = engine.images.short_names
        self._registries = engine.config.registries

    def facts(self) -> dict[str, Any]:
        """How registries are reached, under Docker's names, without passwords."""
        from proa.transfer.proxies import Proxies

        settings = self._registries
        proxies = settings.proxies.over(Proxies.from_environment()).redacted()
        networks = [entry for entry in settings.insecure if "/" in entry]
        hosts: dict[str, Any] = {"docker.io": True}
        hosts |= dict.fromkeys([*settings.mirrors, *(entry for entry in settings.insecure if "/" not in entry)])
        return {
            "RegistryConfig": {
                "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128", *networks],
                "IndexConfigs": {
                    host: {
                        "Name": host,
                        "Mirrors": list(settings.mirrors.get(host, ())),
                        "Secure": not settings.is_insecure(host),
                        "Official": host == "docker.io",
                    }
                    for host in hosts
                },
                "Mirrors": list(settings.mirrors.get("docker.io", ())),
            },
            "HttpProxy": proxies.http,
            "HttpsProxy": proxies.https,
            "NoProxy": proxies.no,
        }

    @contextmanager
    def _remote(self, reference: Reference, credentials: Credentials | None) -> Iterator[Remote]:
        remote = Remote(reference, credentials, registries=self._registries)
        try:
            yield remote
        finally:
            remote.close()

    def inspect(self, name: str, *, platform: str = "", credentials: Credentials | None = None) -> RemoteImage:
        """The documents of what `name` points to. Raises NotFound, Unauthorized, Unavailable, Invalid."""
        from proa.transfer.inspecting import inspect_remote

        wanted = parse_platform(platform) if platform else None
        with self._remote(self._names.parse(name), credentials) as remote:
            return inspect_remote(remote, wanted)

    def tags(self, repository: str, *, credentials: Credentials | None = None) -> list[str]:
        """Every tag of a repository. Raises NotFound, Unauthorized, Unavailable."""
        with self._remote(self._names.parse(repository), credentials) as remote:
            return transfer.list_tags(remote)

    def delete(self, name: str, *, credentials: Credentials | None = None) -> str:
        """Delete a tag, or with a digest a manifest and its tags. Raises NotFound, Denied, Unsupported, Invalid."""
        if ":" not in name.rpartition("/")[2]:
            raise Invalid(f"{name} names no tag and no digest to delete", code="tag-missing", subject=name)
        with self._remote(self._names.parse(name), credentials) as remote:
            return transfer.delete_name(remote)

    def copy(
        self,
        source: str,
        destination: str,
        *,
        platform: str = "",
        credentials: tuple[Credentials | None, Credentials | None] = (None, None),
        progress: Progress = silent,
        stopped: threading.Event | None = None,
    ) -> Descriptor:
        """Copy what a name points to, all platforms of it unless one is chosen, to another name in any registry.

        credentials: for the source and for the destination
        stopped: set it to cancel
        Returns the descriptor that both have now. Raises what a pull and a push raise.
        """
        first, second = self._names.parse(source), self._names.parse(destination)
        if second.digest and not second.tag:
            raise Invalid("cannot copy to a digest reference", code="push-digest", subject=destination)
        same = first.registry == second.registry
        into = Remote(
            second,
            credentials[1],
            registries=self._registries,
            mount_from=first.repository if same and first.repository != second.repository else None,
        )
        try:
            with self._remote(first, credentials[0]) as remote:
                progress(ProgressEvent(status=f"Copying {first.name} to {second.name}"))
                wanted = parse_platform(platform) if platform else None
                jobs = self._registries.uploads
                copied = transfer.copy(remote, into, platform=wanted, progress=progress, stopped=stopped, jobs=jobs)
        finally:
            into.close()
        progress(ProgressEvent(status=f"Digest: {copied.digest}"))
        progress(ProgressEvent(aux={"Tag": second.tag or "", "Digest": copied.digest, "Size": copied.size}))
        return copied

    def search(
        self,
        term: str,
        *,
        limit: int = 25,
        filters: Mapping[str, Sequence[str]] | None = None,
        credentials: Credentials | None = None,
    ) -> list[Found]:
        """Repositories that match a term, `registry/term` in that registry. Raises Unsupported, Unavailable …"""
        from proa.transfer.searching import passes, search

        if not term.strip() or not 1 <= limit <= 100:
            raise Invalid("a search wants a term, and a limit from 1 to 100", code="search-invalid")
        first, slash, rest = term.partition("/")
        named = bool(slash) and ("." in first or ":" in first or first == "localhost")
        registry, words = (first, rest) if named else (self._names.default_registry, term)
        found = search(registry, words, limit=limit, credentials=credentials, registries=self._registries)
        return [item for item in found if passes(item, dict(filters or {}))]
