"""Filters of `ps`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records import container

from proa.engine.catalog import Catalog
from proa.engine.filters import compile_filters, match_labels, until_time
from proa.engine.types import Container, EndpointSettings, MountPoint, PortBinding
from proa.errors import Invalid, NotFound

ONE = container(
    id="1" * 64,
    name="web-1",
    created="2026-01-01T00:00:00Z",
    labels={"tier": "front", "x": ""},
    endpoints=[EndpointSettings(network="bridge", network_id="n1")],
    mounts=[MountPoint(type="volume", source="/v", destination="/data", name="vol")],
    ports={"80/tcp": [PortBinding(host_port="8080")]},
    config={"exposed_ports": {"443/tcp": {}}},
)
TWO = container(
    id="2" * 64, name="db", created="2026-01-02T00:00:00Z", status="exited", exit_code=3, image_name="other:1"
)
THREE = container(id="3" * 64, name="new", created="2026-01-03T00:00:00Z", status="created")


def by_name(image: str) -> Callable[[Container], bool]:
    """Which images stand on others is the engine's to know."""
    return lambda record: record.image_name == image


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    made = Catalog(Path(tmp_path_factory.mktemp("catalog")))
    for record in (ONE, TWO, THREE):
        made.add(record)
    return made


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["web-1", "db", "new"]),
        ({"status": ["exited", "created"]}, ["db", "new"]),
        ({"label": ["tier"]}, ["web-1"]),
        ({"label": ["tier=front", "x"]}, ["web-1"]),
        ({"label": ["tier=back"]}, []),
        ({"label!": ["tier"]}, ["db", "new"]),
        ({"name": ["^/?web"]}, ["web-1"]),
        ({"name": ["e"]}, ["web-1", "new"]),
        ({"id": ["22"]}, ["db"]),
        ({"exited": ["3"]}, ["db"]),
        ({"exited": ["0"]}, []),
        ({"ancestor": ["other:1"]}, ["db"]),
        ({"ancestor": ["none", "other:1"]}, ["db"]),
        ({"ancestor": ["none"]}, []),
        ({"network": ["bridge"]}, ["web-1", "db", "new"]),  # the others are for it
        ({"network": ["n1"]}, ["web-1"]),
        ({"volume": ["vol"]}, ["web-1"]),
        ({"volume": ["/data"]}, ["web-1"]),
        ({"before": ["db"]}, ["web-1"]),
        ({"since": ["db"]}, ["new"]),
        ({"publish": ["80"]}, ["web-1"]),
        ({"publish": ["8080/tcp"]}, ["web-1"]),
        ({"publish": ["8080/udp"]}, []),
        ({"publish": ["8000-8100"]}, ["web-1"]),
        ({"publish": ["1-79"]}, []),
        ({"expose": ["443"]}, ["web-1"]),
        ({"health": ["none"]}, ["web-1", "db", "new"]),
        ({"is-task": ["true"]}, []),
        ({"status": ["exited"], "label": ["tier"]}, []),
        ({"until": ["2026-01-02T12:00:00Z"]}, ["web-1", "db"]),
    ],
)
def test_filters(catalog: Catalog, filters: dict[str, list[str]], names: list[str]) -> None:
    passes = compile_filters(filters, catalog, by_name)
    records: list[Container] = [ONE, TWO, THREE]
    assert [record.name for record in records if passes(record)] == names


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ({"nosuch": ["x"]}, Invalid),
        ({"status": ["sleeping"]}, Invalid),
        ({"name": ["("]}, Invalid),
        ({"health": ["splendid"]}, Invalid),
        ({"exited": ["x"]}, Invalid),
        ({"publish": ["http"]}, Invalid),
        ({"before": ["nosuch"]}, NotFound),
    ],
)
def test_no_filters(catalog: Catalog, filters: dict[str, list[str]], error: type[Exception]) -> None:
    with pytest.raises(error):
        compile_filters(filters, catalog, by_name)


def test_labels() -> None:
    labels: dict[str, Any] = {"a": "1", "b": ""}
    assert match_labels(labels, ["a", "b=", "a=1"])
    assert not match_labels(labels, ["a="])
    assert match_labels({}, [])


def test_times() -> None:
    assert until_time("1700000000.5") == 1700000000.5
    assert until_time("2023-11-14T22:13:20Z") == 1_700_000_000
    now = time.time()
    assert abs(until_time("1h1m1s") - (now - 3661)) < 5
