"""The engine as an object: `connect()`.

with proa.connect() as engine:
    result = engine.containers.run("hello")
    print(result.stdout.decode())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import msgspec

from proa.client.artifacts import Artifacts, Manifests
from proa.client.blocking import BlockingTransport
from proa.client.calls import decode, exchange, filters_text, headers_of_all_registries, json_stream, transfer
from proa.client.containers import Containers
from proa.client.endpoint import Endpoint, locate
from proa.client.flow import Blocking, Flow, Request, Stream, Transport, operation, stream
from proa.client.http import query
from proa.client.images import Images
from proa.client.models import DiskUsage, Event, Info, Problem, Progress, Version
from proa.client.resources import Networks, Volumes
from proa.client.tls import Tls

__all__ = ["Client", "ClientCore", "connect"]


class ClientCore:
    """The operations of an engine as a whole."""

    _transport: Any

    @operation
    def version(self) -> Flow[Version]:
        """Versions of the engine. Raises Unavailable when it cannot be reached."""
        return decode((yield from exchange("GET", "/version")), Version)

    @operation
    def info(self) -> Flow[Info]:
        """Facts about the engine and its machine."""
        return decode((yield from exchange("GET", "/info")), Info)

    @stream
    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Stream[Event]:
        """What happens, as it happens: until `until` (seconds since 1970) or for good."""
        target = query(
            since=None if since is None else f"{since:.9f}",
            until=None if until is None else f"{until:.9f}",
            filters=filters_text(filters),
        )
        yield from json_stream(Request("GET", f"/events{target}"), Event)

    @operation
    def usage(self) -> Flow[DiskUsage]:
        """What the engine's data root occupies, by what it is for; the parts add up to what du finds there."""
        return decode((yield from exchange("GET", "/proa/v1/usage")), DiskUsage)

    @operation
    def check(
        self, *, repair: bool = False, quick: bool = False, progress: Callable[[Progress], None] | None = None
    ) -> Flow[list[Problem]]:
        """Check everything that is stored for damage; what was found, in order. An empty list is a clean root.

        repair: put right what can be; what is fetched again needs the logins that a pull needs
        quick: leave out what reads all bytes
        """
        target = f"/proa/v1/check{query(repair=repair, quick=quick)}"
        headers = (yield from headers_of_all_registries()) if repair else ()
        records = yield from transfer(Request("POST", target, headers=headers), progress)
        found = [record["aux"] for record in records if "kind" in (record.get("aux") or {})]
        return msgspec.convert(found, list[Problem])

    def close(self) -> None:
        """Close the connections that are kept for further requests."""
        self._transport.close()


class Client(ClientCore, Blocking):
    """An engine; its operations block. Safe for several threads."""

    def __init__(self, endpoint: Endpoint, *, start: bool = True) -> None:
        self._transport: Transport = BlockingTransport(endpoint, start=start)
        self.endpoint = endpoint
        self.containers = Containers(self._transport)
        self.images = Images(self._transport)
        self.networks = Networks(self._transport)
        self.volumes = Volumes(self._transport)
        self.manifests = Manifests(self._transport)
        self.artifacts = Artifacts(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(host: str = "", *, start: bool = True, tls: Tls | bool | None = None) -> Client:
    """The engine at `host`, else the one PROA_HOST, DOCKER_HOST or DOCKER_CONTEXT name, else this user's own.

    host: `unix:///path`, `tcp://host` or `tcp://host:port`.
    start: whether this user's own engine is started when it does not run yet.
    tls: for TCP: `proa.Tls` names the files; True takes Docker's (ca.pem, cert.pem, key.pem in DOCKER_CERT_PATH or
        ~/.docker); default: as DOCKER_TLS_VERIFY says.
    Nothing is sent yet: operations raise Unavailable when the engine cannot be reached. Raises Invalid for a bad host.
    """
    return Client(locate(host, tls), start=start)
