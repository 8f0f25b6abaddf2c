"""What there is not, told as Docker tells it."""

from __future__ import annotations

import pytest

from proa.api.operations import ROUTES
from proa.api.routes import Router

ROUTER = Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/swarm"),
        ("POST", "/swarm/init"),
        ("GET", "/nodes"),
        ("DELETE", "/nodes/x"),
        ("POST", "/services/create"),
        ("POST", "/services/x/update"),
        ("GET", "/tasks/x/logs"),
        ("POST", "/configs/x/update"),
    ],
)
def test_no_swarm_has_a_route(method: str, path: str) -> None:
    route, _ = ROUTER.find(method, path, (1, 51))
    assert route.operation.__name__ == "no_swarm"


def test_plugins() -> None:
    assert ROUTER.find("GET", "/plugins", (1, 51))[0].operation.__name__ == "plugins"
    route, variables = ROUTER.find("POST", "/plugins/vendor/x:latest/enable", (1, 51))
    assert (route.operation.__name__, variables["name"]) == ("no_plugin", "vendor/x:latest")
