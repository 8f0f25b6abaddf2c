"""proa's own operations as an OpenAPI 3.1 document, made of the routes, their operations' words, and one table.

A row of the table says what the code of an operation does not say by itself: the query, headers and body it reads and
the shape it answers with. A test holds rows and routes together, and each row's query against what its operation reads.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from proa._version import __version__
from proa.api.messages import JSON, MULTIPLEXED_STREAM, TAR
from proa.api.operations.artifacts import BINARY, ListChange
from proa.api.routes import Route
from proa.engine.artifacts import Artifact
from proa.engine.image_mounts import ImageMount
from proa.engine.types import ExecRequest, PortBinding
from proa.engine.usage import DiskUsage

PREFIX = "/proa/v1"

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
NULL: Schema = {"type": "null"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one operation takes and gives.

    query, headers: name -> (schema, what it means); a query parameter whose name ends in `!` must be there
    body:    (content type, schema, whether it must be there); None for none
    answer:  (status, content type, schema of a JSON document); the content type is empty when nothing follows the head
    """

    query: dict[str, tuple[Schema, str]] = {}
    headers: dict[str, str] = {}
    body: tuple[str, Schema, bool] | None = None
    answer: tuple[int, str, Schema] = (204, "", {})


def _object(**members: Schema) -> Schema:
    """An object that has all these members, and may have more one day."""
    return {"type": "object", "properties": members, "required": list(members)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, NULL]}


def _struct(kind: type[msgspec.Struct]) -> Schema:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


_AUTH = {"X-Registry-Auth": "The registry's credentials, as Docker sends them: base64url of a JSON object"}
_PLATFORM = {"platform": (TEXT, "os/arch[/variant], or the same as a JSON object")}
_NAME = {"name!": (TEXT, "The image's name, as a user writes it")}
_PROGRESS = (200, JSON, {"$ref": "#/components/schemas/Progress"})
_LIST_BODY = (JSON, _struct(ListChange), False)
_LIST_ID = (200, JSON, _object(Id=TEXT))
_PORTS: Schema = {
    "type": "object",
    "propertyNames": {"description": "PORT/PROTOCOL"},
    "additionalProperties": _or_null(_list(_struct(PortBinding))),
}
_EXEC = _object(
    ID=TEXT,
    Running=FLAG,
    ExitCode=_or_null({"type": "integer"}),
    ProcessConfig=_object(tty=FLAG, entrypoint=TEXT, arguments=TEXTS, privileged=FLAG),
    OpenStdin=FLAG,
    OpenStdout=FLAG,
    OpenStderr=FLAG,
    CanRemove=FLAG,
    ContainerID=TEXT,
    Pid={"type": "integer"},
)
_VOLUME = _object(
    CreatedAt=TIME,
    Driver=TEXT,
    Labels=_or_null(LABELS),
    Mountpoint=TEXT,
    Name=TEXT,
    Options=_or_null(LABELS),
    Scope=TEXT,
)
_STATUS = _object(
    Version=TEXT,
    ApiVersion=TEXT,
    MinApiVersion=TEXT,
    Pid=COUNT,
    Root=TEXT,
    Run=TEXT,
    StartedAt=TIME,
    UptimeSeconds=SECONDS,
    Busy=FLAG,
    Connections=COUNT,
    Transfers=COUNT,
)

_SCOPE = _object(ReadOnly=FLAG, Labels={"type": "object", "additionalProperties": TEXT}, Allow=TEXTS)

ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/sockets"): Row(
        answer=(200, JSON, _list(_object(Path=TEXT, Owner=TEXT, Scope=_SCOPE, Clients={"type": "integer"})))
    ),
    ("POST", "/sockets"): Row(
        body=(JSON, {**_object(Path=TEXT, Owner=TEXT, Scope=_SCOPE), "required": ["Path", "Scope"]}, True),
        answer=(201, JSON, _object(Path=TEXT, Owner=TEXT, Scope=_SCOPE)),
    ),
    ("DELETE", "/sockets"): Row(query={"path": (TEXT, "Where it is: an absolute path")}),
    ("GET", "/openapi.json"): Row(answer=(200, JSON, _object(openapi=TEXT))),
    ("GET", "/status"): Row(answer=(200, JSON, _STATUS)),
    ("GET", "/usage"): Row(answer=(200, JSON, _struct(DiskUsage))),
    ("POST", "/stop"): Row(answer=(202, JSON, _object(Stopping=FLAG))),
    ("POST", "/boot"): Row(answer=(200, JSON, _list(_object(Id=TEXT, Name=TEXT, Status=TEXT, Error=TEXT)))),
    ("POST", "/check"): Row(
        query={
            "repair": (FLAG, "Fetch, unpack or write again what is damaged"),
            "quick": (FLAG, "Look at sizes and times instead of every byte"),
        },
        headers={
            "X-Registry-Config": "Credentials by registry, as docker build sends them: base64url of a JSON object"
        },
        answer=_PROGRESS,
    ),
    ("POST", "/networks/reload"): Row(answer=(200, JSON, _object(Warnings=TEXTS))),
    ("POST", "/containers/{id}/ports"): Row(
        body=(JSON, {"type": "object", "properties": {"Add": _PORTS, "Remove": TEXTS}}, True),
        answer=(200, JSON, _object(Ports=_PORTS)),
    ),
    ("POST", "/containers/{id}/exec"): Row(
        body=(JSON, _struct(ExecRequest), True), answer=(200, MULTIPLEXED_STREAM, {})
    ),
    ("POST", "/containers/run"): Row(
        query={"name": (TEXT, "The container's name; one is made up when not given"), **_PLATFORM},
        body=(JSON, {"type": "object", "properties": {"Image": TEXT, "Cmd": TEXTS}, "required": ["Image"]}, True),
        answer=(200, MULTIPLEXED_STREAM, {}),
    ),
    ("GET", "/containers/{id}/execs"): Row(answer=(200, JSON, _list(_EXEC))),
    ("POST", "/exec/{id}/kill"): Row(query={"signal": (TEXT, "A signal's name or number; KILL when not given")}),
    ("GET", "/images/{name:path}/changes"): Row(
        query={"from": (TEXT, "The other image; its own lower layers when not given"), **_PLATFORM},
        answer=(200, JSON, _list(_object(Kind={"type": "integer"}, Path=TEXT))),
    ),
    ("POST", "/images/{name:path}/mount"): Row(
        query={"target": (TEXT, "Where the client is going to mount it: an absolute path"), **_PLATFORM},
        answer=(200, JSON, _list(_object(Type=TEXT, Source=TEXT, Options=TEXTS))),
    ),
    ("GET", "/image-mounts"): Row(answer=(200, JSON, _list(_struct(ImageMount)))),
    ("DELETE", "/image-mounts"): Row(query={"target": (TEXT, "Where it was mounted")}),
    ("GET", "/images/{name:path}/rootfs"): Row(query=_PLATFORM, answer=(200, TAR, {})),
    ("POST", "/images/{name:path}/rootfs"): Row(
        query={"directory": (TEXT, "An empty directory of the engine's machine: an absolute path"), **_PLATFORM}
    ),
    ("GET", "/registry/image"): Row(
        query={**_NAME, **_PLATFORM, "raw": (FLAG, "The manifest or index byte for byte, under its own media type")},
        headers=_AUTH,
        answer=(200, JSON, {"type": "object"}),
    ),
    ("DELETE", "/registry/image"): Row(query=_NAME, headers=_AUTH, answer=(200, JSON, _object(Deleted=TEXT))),
    ("GET", "/registry/tags"): Row(query=_NAME, headers=_AUTH, answer=(200, JSON, _object(Tags=TEXTS))),
    ("POST", "/registry/copy"): Row(
        query={
            "from!": (TEXT, "The image to copy"),
            "to!": (TEXT, "The name it gets"),
            "platform": (TEXT, "One platform only"),
        },
        headers={**_AUTH, "X-Proa-Source-Auth": "The credentials of the registry copied from, in the same form"},
        answer=_PROGRESS,
    ),
    ("GET", "/reference"): Row(
        query={**_NAME, "tag": (TEXT, "A tag or digest that was written apart from the name")},
        answer=(200, JSON, _object(Name=TEXT, Registry=TEXT)),
    ),
    ("GET", "/repositories"): Row(answer=(200, JSON, _object(Repositories=TEXTS))),
    ("GET", "/volumes/{name}/export"): Row(answer=(200, TAR, {})),
    ("PUT", "/volumes/{name}/import"): Row(
        query={"replace": (FLAG, "Remove what is in the volume first")},
        body=(TAR, {}, True),
        answer=(201, JSON, _VOLUME),
    ),
    ("POST", "/volumes/{name}/clone"): Row(
        body=(
            JSON,
            {
                "type": "object",
                "properties": {"Name": {"type": "string", "minLength": 1}, "Labels": _or_null(LABELS)},
                "required": ["Name"],
            },
            True,
        ),
        answer=(201, JSON, _VOLUME),
    ),
    ("POST", "/manifests/{name:path}/add"): Row(headers=_AUTH, body=_LIST_BODY, answer=_LIST_ID),
    ("POST", "/manifests/{name:path}/annotate"): Row(body=_LIST_BODY, answer=_LIST_ID),
    ("POST", "/manifests/{name:path}/remove"): Row(body=_LIST_BODY, answer=_LIST_ID),
    ("POST", "/manifests/{name:path}/push"): Row(
        query={
            "to": (TEXT, "Another name to push it under"),
            "purge": (FLAG, "Forget the list when it has been pushed"),
        },
        headers=_AUTH,
        answer=_PROGRESS,
    ),
    ("POST", "/manifests/{name:path}"): Row(headers=_AUTH, body=_LIST_BODY, answer=(201, JSON, _object(Id=TEXT))),
    ("GET", "/manifests/{name:path}"): Row(answer=(200, JSON, {"type": "object"})),
    ("DELETE", "/manifests/{name:path}"): Row(),
    ("GET", "/artifacts"): Row(answer=(200, JSON, _list(_struct(Artifact)))),
    ("POST", "/artifacts/{name:path}/add"): Row(
        query={
            "title": (TEXT, "The file's name"),
            "type": (TEXT, "The artifact's media type"),
            "fileType": (TEXT, "The file's media type"),
            "append": (FLAG, "Add to the artifact that is there"),
            "annotation": (TEXTS, "KEY=VALUE, any number of times"),
        },
        body=(BINARY, {}, True),
        answer=_PROGRESS,
    ),
    ("POST", "/artifacts/{name:path}/pull"): Row(headers=_AUTH, answer=_PROGRESS),
    ("POST", "/artifacts/{name:path}/push"): Row(headers=_AUTH, answer=_PROGRESS),
    ("GET", "/artifacts/{name:path}/file"): Row(
        query={"title": (TEXT, "The file's name or digest; may be left out when there is one file")},
        answer=(200, BINARY, {}),
    ),
    ("GET", "/artifacts/{name:path}"): Row(
        query={"raw": (FLAG, "The manifest byte for byte")}, answer=(200, JSON, {"type": "object"})
    ),
    ("DELETE", "/artifacts/{name:path}"): Row(answer=(200, JSON, {"type": "object"})),
}

_ERROR = {**_object(message=TEXT, code=TEXT), "description": "A failure: its text, a stable code, sometimes a hint"}
_ERROR["properties"]["hint"] = TEXT
_PROGRESS_LINE = {
    "type": "object",
    "description": "One line of several, divided by CR LF. A failure after the first line is the last line",
    "properties": {
        "status": TEXT,
        "id": TEXT,
        "stream": TEXT,
        "progress": TEXT,
        "progressDetail": {"type": "object", "properties": {"current": COUNT, "total": COUNT}},
        "aux": {"type": "object"},
        "error": TEXT,
        "errorDetail": {"type": "object"},
    },
}
_VARIABLES = {"id": "Name, ID or the beginning of an ID", "name": "Name; a slash in it may be written %2F"}


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    from proa.api.operations import ROUTES

    return msgspec.json.encode(describe(ROUTES))


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The document about those of the routes that are proa's own. Raises KeyError for one without a row."""
    _, schemas = msgspec.json.schema_components(
        (ExecRequest, ListChange, PortBinding, DiskUsage, ImageMount, Artifact),
        schema_hook=lambda _: {"description": "Any JSON value"},
        ref_template="#/components/schemas/{name}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.template.startswith(PREFIX + "/"):
            row = ROWS[route.method, route.template.removeprefix(PREFIX)]
            path = route.template.replace(":path}", "}")
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "proa",
            "version": __version__,
            "summary": "What the engine does beyond the Docker Engine API",
        },
        "servers": [{"url": "/", "description": "The engine's socket, $PROA_RUN/engine.sock"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {**schemas, "Error": _ERROR, "Progress": _PROGRESS_LINE}},
    }


def words(route: Route) -> tuple[str, str]:
    """A summary and a longer text, from the operation's documentation: "`GET /path`: summary", then paragraphs."""
    text = route.operation.__doc__ or ""
    first, _, rest = text.partition("\n")
    summary = first.partition("`")[2].partition("`")[2].lstrip(":; ").rstrip(".")
    plain = " ".join(rest.split())
    return summary[:1].upper() + summary[1:], plain


def _operation(route: Route, row: Row) -> dict[str, Any]:
    summary, text = words(route)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": TEXT, "description": _VARIABLES[name]}
        for name in re.findall(r"\{([a-z]+)", route.template)
    ]
    for name, (schema, meaning) in row.query.items():
        plain, needed = name.removesuffix("!"), name.endswith("!")
        parameters.append({"name": plain, "in": "query", "required": needed, "schema": schema, "description": meaning})
    for name, meaning in row.headers.items():
        parameters.append({"name": name, "in": "header", "required": False, "schema": TEXT, "description": meaning})
    status, kind, shape = row.answer
    done: dict[str, Any] = {"description": "Done"}
    if kind:
        done["content"] = {kind: {"schema": shape} if shape else {}}
    failed = {"description": "Failed", "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    out: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z]+', '-', route.template.removeprefix(PREFIX))}".strip(
            "-"
        ),
        "summary": summary,
        "parameters": parameters,
        "responses": {str(status): done, "default": failed},
    }
    if text:
        out["description"] = text
    if row.body is not None:
        body_kind, schema, needed = row.body
        out["requestBody"] = {"required": needed, "content": {body_kind: {"schema": schema} if schema else {}}}
    return out
