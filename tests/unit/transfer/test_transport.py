"""Retries, waits and errors of the transport, without a network."""

import email.utils
import threading
import time

import pytest

from proa.errors import Cancelled, Denied, Exhausted, NotFound, ProaError, TimedOut, Unauthorized, Unavailable
from proa.oci import parse_reference
from proa.transfer.failures import registry_failure, resolve_failure
from proa.transfer.transport import RETRY_AFTER_CAP_S, TRIES, Transport, retry_after_s
from proa.transfer.wire import HttpReply


def test_retry_after():
    assert retry_after_s("3") == 3
    assert retry_after_s("999999999") == RETRY_AFTER_CAP_S
    assert retry_after_s("") is None
    assert retry_after_s("٣") is None
    assert retry_after_s("soon") is None
    assert 0 <= retry_after_s(email.utils.formatdate(time.time() + 5, usegmt=True)) <= 6
    assert retry_after_s(email.utils.formatdate(0, usegmt=True)) == 0


def replies(*items):
    left = list(items)

    def once():
        item = left.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    return once, left


def test_temporary_failures_are_tried_again():
    transport = Transport(backoff_s=0.001)
    lost = Unavailable("x", temporary=True)
    once, _ = replies(HttpReply(503), lost, TimedOut("x", temporary=True), HttpReply(200))
    assert transport.retrying(once).status == 200
    once, left = replies(*[HttpReply(429)] * 9)
    assert transport.retrying(once).status == 429
    assert len(left) == 9 - TRIES
    once, left = replies(Unavailable("refused"), HttpReply(200))
    with pytest.raises(Unavailable, match="refused"):
        transport.retrying(once)
    assert len(left) == 1
    once, left = replies(*[lost] * 9)
    with pytest.raises(Unavailable):
        transport.retrying(once)
    assert len(left) == 9 - TRIES


def test_waiting_ends_with_the_transfer():
    stopped = threading.Event()
    transport = Transport(stopped=stopped)
    threading.Timer(0.05, stopped.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        transport.pause(0, 60.0)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (401, b"", Unauthorized, "status 401"),
        (403, b'{"errors":[{"code":"DENIED","message":"no"}]}', Denied, "denied: no"),
        (404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}', NotFound, "blob unknown"),
        (429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"x"}]}', Unavailable, "toomanyrequests"),
        (413, b"", Exhausted, "status 413"),
        (500, b"<html>big</html>", Unavailable, "status 500"),
        (502, b'{"errors":[]}', Unavailable, "errors"),
        (400, b'{"errors":[{"code":5,"message":[1]}]}', ProaError, "x: "),
        (400, b'{"errors":[null]}', ProaError, "x: "),
        (400, b"\x1b[31mred\x00", ProaError, "red"),
    ],
)
def test_registry_failures(status, body, kind, text):
    error = registry_failure(HttpReply(status, {}, body), "x", "subject")
    assert isinstance(error, kind)
    assert text in error.message
    assert error.message.isprintable()
    assert len(error.message) < 500


def test_resolve_failures_have_dockers_words():
    reference = parse_reference("busybox:none")
    missing = HttpReply(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
    assert str(resolve_failure(missing, reference)) == (
        "manifest for busybox:none not found: manifest unknown: manifest unknown"
    )
    denied = HttpReply(
        403, {}, b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    )
    assert str(resolve_failure(denied, reference)) == (
        "pull access denied for busybox, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )
