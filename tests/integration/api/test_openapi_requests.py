"""Requests made from the OpenAPI document against an engine: answers are as described, and never a defect.

Schemathesis makes the requests. Registries are out of reach here, which must be told and is no defect.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engines
import pytest
import requests
import schemathesis
from docker.transport import UnixHTTPAdapter
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from proa.api.openapi import describe
from proa.api.operations import ROUTES

pytestmark = pytest.mark.root

URL = "http://localhost"
schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
SCHEMA = schemathesis.openapi.from_dict(describe(ROUTES))
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}
# `stop` ends the engine, `run` waits for the end of whatever command it is given; both
# have tests of their own.
TRIED = sorted(set(OPERATIONS) - {"POST /proa/v1/stop", "POST /proa/v1/containers/run"})
# Of an image that is there it would unpack files wherever the request says.
OUTSIDE = {"POST /proa/v1/images/{name}/rootfs"}
ONE = {"name": "one", "id": "one"}
PROGRESS = {label for label in TRIED if "schemas/Progress" in json.dumps(OPERATIONS[label].definition.raw["responses"])}
LINE = set(SCHEMA.raw_schema["components"]["schemas"]["Progress"]["properties"])
# Not reached, not possible, no room, took too long: the document's `default`, and no fault of the code.
HONEST = (501, 503, 504, 507)
EXAMPLES = 12


@pytest.fixture(scope="module")
def engine(busybox_tar: Path) -> Iterator[engines.PrivateEngine]:
    """An engine with an image `one`, a container and a volume of that name, and no way to any registry."""
    private = engines.PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-openapi-")))
    nowhere = "http://127.0.0.1:9"
    private.env |= {"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "NO_PROXY": ""}
    try:
        private.proa("import", str(busybox_tar), "one")
        private.proa("run", "-d", "--name", "one", "--network", "none", "one", "sleep", "600")
        private.proa("volume", "create", "one")
        yield private
    finally:
        private.close()


@pytest.fixture(scope="module")
def session(engine: engines.PrivateEngine) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        made.mount("http://", UnixHTTPAdapter(engine.socket.removeprefix("unix://"), timeout=30))
        yield made


def judge(case: Any, session: requests.Session) -> None:
    """Send one request and hold the answer against the document."""
    response = session.request(**case.as_transport_kwargs(URL), timeout=30)
    asked: list[Any] = [checks.status_code_conformance, checks.content_type_conformance]
    if response.status_code not in HONEST:
        asked.append(not_a_server_error)
    if case.operation.label in PROGRESS and response.status_code == 200:
        assert response.text.endswith("\r\n")
        for line in response.text.splitlines():
            assert set(json.loads(line)) <= LINE
    else:
        asked.append(checks.response_schema_conformance)
    case.validate_response(response, checks=asked)


@pytest.mark.parametrize(
    ("label", "variables"),
    [*((label, {}) for label in TRIED), *((label, ONE) for label in TRIED if "{" in label and label not in OUTSIDE)],
    ids=lambda value: value if isinstance(value, str) else ("one" if value else "any"),
)
def test_generated_requests(label: str, variables: dict[str, str], session: requests.Session) -> None:
    operation = OPERATIONS[label]
    fixed = {name: value for name, value in variables.items() if f"{{{name}}}" in label}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(**({"path_parameters": fixed} if fixed else {})))
    def send(case: Any) -> None:
        judge(case, session)

    send()
