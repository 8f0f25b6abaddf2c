"""The OpenAPI document says what the routes are: each of them, its parameters as its operation reads them, its body."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from proa.api.openapi import PREFIX, ROWS, describe, words
from proa.api.operations import ROUTES
from proa.api.routes import Route, Router

OWN = [route for route in ROUTES if route.template.startswith("/proa")]
DOCUMENT = json.loads(json.dumps(describe(ROUTES)))
READS = re.compile(r'query\.(?:text|texts|flag|number|seconds)\(\s*"(\w+)"')
HEADERS = {
    "X-Registry-Auth": ("credentials(request",),
    "X-Proa-Source-Auth": ("SOURCE_AUTH",),
    "X-Registry-Config": ("x-registry-config",),
}


def name(route: Route) -> str:
    return f"{route.method} {route.template}"


def described(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.template.replace(":path", "")][route.method.lower()]
    return found


def reads(route: Route) -> set[str]:
    """The query parameters that an operation's code asks for."""
    code = inspect.getsource(route.operation)
    found = set(READS.findall(code)) | ({"platform"} if "query.platform()" in code else set())
    for parameter in re.findall(r"_name\(request(?:, \"(\w+)\")?\)", code):
        found.add(parameter or "name")
    return found


def test_every_route_of_ours_is_described_and_nothing_else() -> None:
    paths = {(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert paths == {(route.method, route.template.replace(":path", "")) for route in OWN}
    assert set(ROWS) == {(route.method, route.template.removeprefix(PREFIX)) for route in OWN}


def test_every_path_leads_to_its_own_operation() -> None:
    router = Router(ROUTES)
    for route in OWN:
        path = re.sub(r"\{\w+(:path)?\}", lambda m: "registry:5000/a/b" if m[1] else "one", route.template)
        assert router.find(route.method, path, (1, 51))[0] is route, route


@pytest.mark.parametrize("route", OWN, ids=name)
def test_parameters_are_those_that_are_read(route: Route) -> None:
    parameters = described(route)["parameters"]
    assert {p["name"] for p in parameters if p["in"] == "query"} == reads(route)
    assert [p["name"] for p in parameters if p["in"] == "path"] == re.findall(r"\{(\w+)", route.template)
    code = inspect.getsource(route.operation)
    expected = {header for header, signs in HEADERS.items() if any(sign in code for sign in signs)}
    assert {p["name"] for p in parameters if p["in"] == "header"} == expected
    assert all(p["description"] and p["schema"] for p in parameters)


@pytest.mark.parametrize("route", OWN, ids=name)
def test_bodies_are_described_where_one_is_read(route: Route) -> None:
    code = inspect.getsource(route.operation)
    kind = next(iter(described(route).get("requestBody", {}).get("content", {})), None)
    if "json_body(" in code or "_change(" in code:
        assert kind == "application/json"
    elif "Upload(" in code or "upload_progress(" in code:
        assert kind in ("application/x-tar", "application/octet-stream")
    else:
        assert kind is None


@pytest.mark.parametrize("route", OWN, ids=name)
def test_every_operation_has_words_for_people(route: Route) -> None:
    assert len(words(route)[0]) > 10, route.operation.__doc__
    assert described(route)["summary"]
    assert (route.operation.__doc__ or "").startswith(f"`{route.method} {route.template.replace(':path', '')}")


def test_ids_are_unique_and_references_resolve() -> None:
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(DOCUMENT)):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in DOCUMENT["components"]["schemas"]


def test_it_is_served(serve: Callable[..., Any]) -> None:
    answer = serve().ask("GET", "/proa/v1/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == DOCUMENT
