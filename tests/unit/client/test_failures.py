from __future__ import annotations

import pytest

from proa import errors
from proa.client.failures import KIND_OF_STATUS, failure, stream_failure


@pytest.mark.parametrize(("status", "kind"), sorted(KIND_OF_STATUS.items()))
def test_every_status_has_its_kind(status: int, kind: type[errors.ProaError]) -> None:
    error = failure(status, b'{"message":"m","code":"c","hint":"h"}')
    assert type(error) is kind
    assert (error.message, error.code, error.hint, error.fields["status"]) == ("m", "c", "h", status)


def test_statuses_nobody_knows() -> None:
    assert type(failure(418, b"")) is errors.Invalid
    assert type(failure(599, b"")) is errors.Internal


def test_bodies_that_are_not_json() -> None:
    assert failure(404, b"No such container: x\n").message == "No such container: x"
    assert "without a reason" in failure(500, b"").message
    assert "without a reason" in failure(500, b"[]").message


def test_failures_inside_streams() -> None:
    assert stream_failure({"status": "fine"}) is None
    error = stream_failure({"error": "old style"})
    assert error is not None
    assert error.message == "old style"
    error = stream_failure({"errorDetail": {"message": "m", "status": 404}})
    assert type(error) is errors.NotFound
