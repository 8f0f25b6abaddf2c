"""The guard of scoped sockets: a request is refused, or goes on narrowed to what the scope covers.

    route not in the scope                    403
    container, network or volume by name      looked up; 403 without the scope's labels; goes on under its id
    list, prune, events                       the labels are added to the filters
    create                                    nothing that reaches the host; the labels are added
    exec, attach, files into a container      only where the container itself reaches nothing of the host

A request that names what does not exist goes on, and gets the answer of the engine's own socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from proa.api.messages import Request, json_body, typed
from proa.api.routes import Route
from proa.api.sockets import powers
from proa.api.sockets.scopes import Scope, area_of, changes
from proa.api.translate.containers import create_request
from proa.errors import Denied, Invalid, NotFound

if TYPE_CHECKING:
    from proa.api.service import Service
    from proa.engine.types import Container

_FILTERED = frozenset(
    {
        *("/containers/json", "/containers/prune", "/networks", "/networks/", "/networks/prune"),
        *("/volumes", "/volumes/prune", "/events"),
    }
)
#: What a label cannot confine, and would show of everybody's.
_OF_EVERYBODY = frozenset({"/system/df", "/proa/v1/usage"})
#: What a labelled scope may do with images, which are shared, unless `--allow images` says more.
_PULLING = frozenset({"/images/create", "/auth"})


class BytesBody:
    """A body that is here already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, limit: int) -> bytes:
        """All of it. Raises Invalid past `limit` bytes."""
        if len(self._data) > limit:
            raise Invalid(f"the request body is larger than {limit} bytes", code="body-too-large")
        return self._data

    async def chunks(self) -> AsyncIterator[bytes]:
        """As one piece."""
        if self._data:
            yield self._data


async def admit(service: Service, request: Request, route: Route) -> None:
    """Let the request of a scoped socket go on, narrowed. Raises Denied naming the scope; Invalid for a bad body."""
    assert request.door is not None
    scope = request.door.scope
    assert scope is not None
    try:
        if not scope.permits(route):
            raise Denied("that is outside of it", code="scope-denied")
        await _Narrowing(service, request, route, scope).apply()
    except Denied as error:
        why = error.message
        try:
            service.audit.refused(request.door, request.peer, request.method, request.path, why)
        except OSError as failure:
            why += f" (and the audit log cannot be written: {failure.strerror})"
        raise Denied(
            f"{request.method} {request.path[:200]} is denied by the scope of the socket {request.door}: {why}",
            code="scope-denied",
            subject=request.door.path,
        ) from None


class _Narrowing:
    """One request and the scope it comes by."""

    def __init__(self, service: Service, request: Request, route: Route, scope: Scope) -> None:
        self._service = service
        self._engine = service.engine
        self._request = request
        self._route = route
        self._scope = scope

    async def apply(self) -> None:
        """Raises Denied."""
        route, request = self._route, self._request
        template, labels = route.template, self._scope.labels
        if template in ("/containers/create", "/proa/v1/containers/run"):
            await self._create_container()
        elif template == "/networks/create":
            await self._create(powers.check_network)
        elif template == "/volumes/create":
            await self._create(powers.check_volume)
            await self._service.pools.quick(self._volume, str((await self._body()).get("Name") or ""))
        elif template.endswith("/containers/{id}/exec") and changes(route):
            body = await self._body()
            if body.get("Privileged"):
                raise Denied("it may not use exec --privileged", code="scope-denied")
            request.body = BytesBody(msgspec.json.encode(body))
        if template in _FILTERED and labels:
            self._filter()
        if labels:
            self._shared_things()
        await self._objects()

    def _shared_things(self) -> None:
        template = self._route.template
        if template in _OF_EVERYBODY:
            raise Denied("it would tell of others' things", code="scope-denied")
        if area_of(template) != "images" or "images" in self._scope.allow or not changes(self._route):
            return
        query = self._request.query
        if template not in _PULLING or (template == "/images/create" and (query.text("fromSrc") or query.text("repo"))):
            raise Denied("images are shared with others: it may only pull them", code="scope-denied")

    def _filter(self) -> None:
        filters = self._request.query.filters()
        wanted = [f"{key}={value}" for key, value in self._scope.labels.items()]
        filters["label"] = [*filters.get("label", ()), *wanted]
        self._request.query = self._request.query.replaced("filters", msgspec.json.encode(filters).decode())

    async def _objects(self) -> None:
        request, template = self._request, self._route.template.removeprefix("/proa/v1")
        quick = self._service.pools.quick
        if template.startswith("/containers/{id}"):
            container = await quick(self._container, request["id"])
            if container is not None:
                request.variables = {**request.variables, "id": container.id}
                self._enter(container, template)
        elif template.startswith("/exec/{id}"):
            await quick(self._exec, request["id"])
        elif template.startswith("/networks/{id}"):
            await self._network(request["id"])
        elif template.startswith("/volumes/{name}"):
            await quick(self._volume, request["name"])
            if template.endswith("/clone"):
                await self._create(lambda _: None)
        elif template == "/commit":
            container = await quick(self._container, request.query.text("container"))
            if container is not None:
                request.query = request.query.replaced("container", container.id)

    def _enter(self, container: Container, template: str) -> None:
        """Refuse to reach the host by way of a container that can."""
        entering = template.endswith(("/exec", "/attach", "/attach/ws")) or (
            template.endswith("/archive") and changes(self._route)
        )
        power = powers.denied_power(container.host) if entering and changes(self._route) else ""
        if power:
            raise Denied(f"the container {container.name} has {power}", code="scope-denied")

    def _container(self, name: str) -> Container | None:
        try:
            container = self._engine.containers.get(name)
        except NotFound:
            return None
        if not self._scope.covers(container.labels):
            raise Denied(f"the container {name[:128]} is outside of it", code="scope-denied", subject=name)
        return container

    def _exec(self, name: str) -> None:
        try:
            found = self._engine.execs.get(name)
        except NotFound:
            return
        container = self._container(found.container)
        if container is not None and changes(self._route):
            self._enter(container, "/exec")
            if found.request.privileged:
                raise Denied("it may not use exec --privileged", code="scope-denied")

    async def _network(self, name: str) -> None:
        request = self._request
        record = await self._service.pools.quick(self._known_network, name)
        if record:
            request.variables = {**request.variables, "id": record}
        if request.method != "POST":
            return
        body = await self._body()
        member = typed(body.get("Container", ""), str, "Container")
        container = await self._service.pools.quick(self._container, member) if member else None
        if container is not None:
            body["Container"] = container.id
        request.body = BytesBody(msgspec.json.encode(body))

    def _known_network(self, name: str) -> str:
        try:
            record = self._engine.networks.get(name)
        except NotFound:
            return ""
        if not self._scope.covers(record.labels):
            raise Denied(f"the network {name[:128]} is outside of it", code="scope-denied", subject=name)
        return record.id

    def _volume(self, name: str) -> dict[str, str]:
        """Its options, empty where there is none of that name."""
        try:
            volume = self._engine.volumes.get(name)
        except NotFound:
            return {}
        if not self._scope.covers(volume.labels):
            raise Denied(f"the volume {name[:128]} is outside of it", code="scope-denied", subject=name)
        return volume.options

    async def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = await json_body(self._request, optional=True)
        return body

    async def _create(self, check: Any) -> None:
        body = await self._body()
        check(body)
        self._label(body)

    def _label(self, body: dict[str, Any]) -> None:
        given = typed(body.get("Labels", {}), dict[str, str], "Labels")
        body["Labels"] = {**given, **self._scope.labels}
        self._request.body = BytesBody(msgspec.json.encode(body))

    async def _create_container(self) -> None:
        body = await self._body()
        wanted = create_request(body, "", "")
        power = powers.denied_power(wanted.host)
        if power:
            raise Denied(f"a container made through it may not have {power}", code="scope-denied")
        await self._service.pools.quick(self._references, wanted.host, wanted.networks)
        self._label(body)

    def _references(self, host: Any, networks: Any) -> None:
        """What a new container uses of others must be in the scope, and reach nothing of the host either."""
        for name in powers.named_containers(host):
            container = self._container(name)
            power = powers.denied_power(container.host) if container is not None else ""
            if power:
                raise Denied(f"the container {name[:128]} that it joins has {power}", code="scope-denied")
        asked = powers.named_networks(host, networks)
        volumes = powers.named_volumes(host)
        self._area("networks", asked)
        self._area("volumes", [*volumes, *(host.volumes_from or [])])
        for name in asked:
            self._known_network(name)
            driver = self._driver(name)
            if driver not in ("", "bridge", "null"):
                raise Denied(f"the network {name[:128]} is the host's own ({driver})", code="scope-denied")
        for name in volumes:
            options = self._volume(name)
            if options and not self._scope.labels:  # a label says that its owner gives it away, device and all
                raise Denied(f"the volume {name[:128]} is a file system of the host's", code="scope-denied")

    def _driver(self, name: str) -> str:
        try:
            return str(self._engine.networks.get(name).driver)
        except NotFound:
            return ""

    def _area(self, area: str, names: list[str]) -> None:
        if names and self._scope.allow and area not in self._scope.allow:
            raise Denied(f"using {names[0][:128]} needs the area {area}", code="scope-denied", subject=names[0])
