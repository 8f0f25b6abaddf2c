"""WWW-Authenticate: what servers really send, and what nobody should."""

import pytest

from proa.errors import Invalid
from proa.transfer.challenge import LIMIT, Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Negotiate", [("negotiate", {})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("NTLM abc==, Basic realm=x", [("ntlm", {}), ("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://h/token",service="h:5000",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://h/token", "service": "h:5000", "scope": "repository:a/b:pull,push"})],
        ),
        ('BEARER Realm = "a\\"b" , error="x"', [("bearer", {"realm": 'a"b', "error": "x"})]),
        (
            'Basic realm="a, b=c", Bearer realm="r"',
            [("basic", {"realm": "a, b=c"}), ("bearer", {"realm": "r"})],
        ),
    ],
)
def test_challenges(header, expected):
    assert parse_challenges(header) == [Challenge(*e) for e in expected]


@pytest.mark.parametrize(
    "header",
    [
        'realm="x"',
        'Basic realm="x',
        'Basic realm="x" realm="y"',
        "Basic realm=\x00",
        "Bearer =x",
        "x" * (LIMIT + 1),
        "(",
    ],
)
def test_malformed_challenges_are_refused(header):
    with pytest.raises(Invalid):
        parse_challenges(header)
