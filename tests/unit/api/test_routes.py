"""Routes: paths are decoded once and checked, versions negotiated in Docker's words."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from proa.api.operations import ROUTES
from proa.api.routes import Route, Router, decode_path, split_version
from proa.errors import Invalid, NotFound


async def _nothing(service: object, request: object) -> None: ...


def test_every_route_is_an_async_operation_with_documentation() -> None:
    for route in ROUTES:
        assert inspect.iscoroutinefunction(route.operation), route
        assert route.operation.__doc__, route
        assert route.template.startswith("/")
    assert len({(r.method, r.template) for r in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "template", "variables"),
    [
        ("GET", "/containers/json", "/containers/json", {}),
        ("GET", "/containers/json/json", "/containers/{id}/json", {"id": "json"}),
        ("POST", "/containers/create", "/containers/create", {}),
        ("GET", "/images/json", "/images/json", {}),
        ("GET", "/images/a/b/c:1/json", "/images/{name:path}/json", {"name": "a/b/c:1"}),
        (
            "GET",
            "/images/localhost:5000/x@sha256:12/json",
            "/images/{name:path}/json",
            {"name": "localhost:5000/x@sha256:12"},
        ),
        ("GET", "/images/get", "/images/get", {}),
        ("GET", "/images/a/get", "/images/{name:path}/get", {"name": "a"}),
        ("DELETE", "/images/a/b", "/images/{name:path}", {"name": "a/b"}),
        ("GET", "/networks/", "/networks/", {}),
        ("HEAD", "/_ping", "/_ping", {}),
    ],
)
def test_find(method: str, path: str, template: str, variables: dict[str, str]) -> None:
    route, found = Router(ROUTES).find(method, path, (1, 51))
    assert (route.template, found) == (template, variables)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/"),
        ("PATCH", "/containers/json"),
        ("GET", "/containers/a/b/json"),
        ("GET", "//containers/json"),
        ("GET", "/containers//json"),
        ("GET", "/containers/json/"),
        ("HEAD", "/version"),
    ],
)
def test_not_found(method: str, path: str) -> None:
    with pytest.raises(NotFound, match=r"^page not found$"):
        Router(ROUTES).find(method, path, (1, 51))


def test_a_route_exists_from_its_version_on() -> None:
    router = Router([Route("GET", "/new", _nothing, since=(1, 40))])  # type: ignore[arg-type]
    assert router.find("GET", "/new", (1, 40))
    with pytest.raises(NotFound):
        router.find("GET", "/new", (1, 39))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/a/b", "/a/b"),
        ("/a%2Fb", "/a/b"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/a%252e", "/a%2e"),
        ("/a:b@c", "/a:b@c"),
    ],
)
def test_decode_path(raw: str, path: str) -> None:
    assert decode_path(raw) == path


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "*",
        "http://x/y",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a%2f..%2fb",
        "/./a",
        "/..",
        "/a/..",
        "/a%00b",
        "/a%0ab",
        "/a%5c..%5cb",
        "/a%zz",
        "/a%",
        "/%c0%ae%c0%ae/b",
        "/%ff",
        "/\udce9",
    ],
)
def test_no_honest_client_sends(raw: str) -> None:
    with pytest.raises(Invalid):
        decode_path(raw)


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/info", (1, 24), "/info"),
        ("/v1.51/info", (1, 51), "/info"),
        ("/info", (1, 51), "/info"),
        ("/version", (1, 51), "/version"),
        ("/v1.x/info", (1, 51), "/v1.x/info"),
        ("/v1.41", (1, 51), "/v1.41"),
    ],
)
def test_split_version(path: str, version: tuple[int, int], rest: str) -> None:
    assert split_version(path) == (version, rest)


def test_version_texts_are_dockers() -> None:
    with pytest.raises(Invalid, match=r"^client version 1\.99 is too new\. Maximum supported API version is 1\.51$"):
        split_version("/v1.99/info")
    with pytest.raises(
        Invalid, match=r"^client version 1\.23 is too old\. Minimum supported API version is 1\.24, please"
    ):
        split_version("/v1.23/info")
    with pytest.raises(Invalid, match=r"^client version 1 is too old"):
        split_version("/v1/info")
    with pytest.raises(Invalid, match="too new"):
        split_version("/v2.0/info")


def test_service_keeps_what_it_is_given() -> None:
    from proa.api.service import Service

    engine = SimpleNamespace()
    assert Service(engine).engine is engine  # type: ignore[arg-type]
