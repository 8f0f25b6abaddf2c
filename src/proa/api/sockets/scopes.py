"""Scopes: what a scoped socket permits, as data. A route that no rule knows belongs to no area and is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.api.routes import Route

#: What `--allow` names.
AREAS = (
    *("containers", "exec", "files", "images", "networks", "volumes"),
    *("system", "build", "secrets", "configs"),
)
#: Without `--allow`: everything may be looked at but contents of files, secrets and configs.
_LOOKING = frozenset(AREAS) - {"files", "build", "secrets", "configs"}
#: Without `--allow`: what labels can confine; images are shared, so only looked at and pulled.
_CONFINED = frozenset({"containers", "exec", "files", "images", "networks", "volumes", "system"})
#: What clients ask before anything else.
_ALWAYS = frozenset({"/_ping", "/version"})

_BY_HEAD = {
    "containers": "containers",
    "exec": "exec",
    "networks": "networks",
    "volumes": "volumes",
    **dict.fromkeys(("images", "commit", "distribution", "auth"), "images"),
    **dict.fromkeys(("manifests", "artifacts", "registry", "reference"), "images"),
    **dict.fromkeys(("info", "events", "system", "status", "usage"), "system"),
    **dict.fromkeys(("build", "session", "grpc"), "build"),
    "secrets": "secrets",
    "configs": "configs",
}
_BY_TAIL = {
    **dict.fromkeys(("archive", "export", "import", "rootfs"), "files"),
    **dict.fromkeys(("exec", "execs"), "exec"),
}
#: The host's side of the engine: never through a scoped socket.
_NEVER = frozenset(
    {
        "/proa/v1/networks/reload",
        "/proa/v1/images/{name:path}/mount",
    }
)
MAX_LABELS = 16
_MAX_TEXT = 1024


class Scope(msgspec.Struct, frozen=True, rename="pascal", kw_only=True, forbid_unknown_fields=True):
    """What one socket permits.

    allow:  the areas, all that make sense where empty
    labels: only containers, networks and volumes that have all of these
    """

    read_only: bool = False
    labels: dict[str, str] = {}
    allow: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ["read-only"] if self.read_only else []
        parts += [f"label {key}={value}" for key, value in self.labels.items()]
        if self.allow:
            parts.append("allow " + ",".join(self.allow))
        return ", ".join(parts)

    def check(self) -> None:
        """Raise Invalid for a scope that permits everything, or names what is not there."""
        if not (self.read_only or self.labels or self.allow):
            raise Invalid(
                "a scoped socket needs a scope: read-only, a label or areas to allow",
                code="scope-empty",
                hint="whoever may use the engine's own socket is root on this machine",
            )
        for area in self.allow:
            if area not in AREAS:
                raise Invalid(f"unknown area {area[:60]!r}: choose of {', '.join(AREAS)}", code="scope-area")
        if len(self.labels) > MAX_LABELS or any(len(text) > _MAX_TEXT for pair in self.labels.items() for text in pair):
            raise Invalid("the scope's labels are too many or too long", code="scope-label")
        if not all(self.labels):
            raise Invalid("a scope's label needs a name", code="scope-label")

    def permits(self, route: Route) -> bool:
        """Whether the route is in the scope at all; which objects it may touch is the guard's to say."""
        if route.template in _ALWAYS:
            return True
        area = area_of(route.template)
        if not area or (self.read_only and changes(route)):
            return False
        if self.allow:
            return area in self.allow
        return area in (_CONFINED if self.labels else _LOOKING)

    def covers(self, labels: dict[str, str]) -> bool:
        """Whether something with these labels may be seen and touched."""
        return all(labels.get(key) == value for key, value in self.labels.items())


def area_of(template: str) -> str:
    """The area of a route's template, empty for what no scoped socket serves."""
    if template in _NEVER:
        return ""
    head, *rest = template.removeprefix("/proa/v1").strip("/").split("/")
    area = _BY_HEAD.get(head, "")
    if head in ("containers", "images", "volumes") and rest:
        return _BY_TAIL.get(rest[-1], area)
    return area


def changes(route: Route) -> bool:
    """Whether the route does more than look; attaching by websocket is a GET that types into a container."""
    return route.method not in ("GET", "HEAD") or route.template.endswith("/attach/ws")
