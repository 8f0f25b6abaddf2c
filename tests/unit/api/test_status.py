"""Failures: one table from kind to status, and nothing of a defect's text to the client."""

from __future__ import annotations

import errno

import pytest

from proa.api.status import STATUS, as_failure, error_reply, printable, status_of
from proa.errors import KINDS, Conflict, Denied, Exhausted, Internal, Invalid, NotFound, NotModified


def test_every_kind_has_a_status() -> None:
    assert set(STATUS) == set(KINDS)
    for kind in KINDS.values():
        assert 300 <= status_of(kind("x")) < 600


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("x"), 404),
        (NotFound("x", code="command-not-found"), 400),
        (Denied("x", code="command-not-executable"), 400),
        (Invalid("x", code="body-too-large"), 413),
        (OSError(errno.ENOSPC, "No space left on device"), 507),
        (OSError(errno.EMFILE, "Too many open files"), 503),
        (MemoryError(), 507),
        (ValueError("secret"), 500),
        (OSError(errno.EIO, "I/O error"), 503),
        (OSError(errno.ELOOP, "Too many levels of symbolic links"), 500),
    ],
)
def test_status(error: Exception, status: int) -> None:
    assert status_of(as_failure(error)) == status


def test_the_body_has_message_code_and_hint() -> None:
    reply = error_reply(Conflict("name taken", code="name-in-use", hint="choose another"))
    assert (reply.status, reply.value) == (
        409,
        {"message": "name taken", "code": "name-in-use", "hint": "choose another"},
    )
    assert error_reply(NotFound("No such container: x")).value == {
        "message": "No such container: x",
        "code": "not-found",
    }


def test_not_modified_has_no_body() -> None:
    assert error_reply(NotModified("already running")).payload() == (b"", "")


def test_a_defects_text_stays_in_the_log() -> None:
    failure = as_failure(ValueError("password=hunter2"))
    assert isinstance(failure, Internal)
    assert "hunter2" not in failure.message


def test_no_space_keeps_its_word() -> None:
    failure = as_failure(OSError(errno.ENOSPC, "No space left on device", "/x"))
    assert isinstance(failure, Exhausted)
    assert "No space left on device" in failure.message


def test_undecodable_names_can_be_told() -> None:
    reply = error_reply(NotFound("no \udcff file"))
    assert b"\\\\udcff" in reply.payload()[0]
    assert printable("plain é") == "plain é"
