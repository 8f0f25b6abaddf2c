"""Token flows as data: what would be sent to whom."""

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from proa.errors import Denied, Invalid, Unauthorized, Unavailable
from proa.transfer.auth import Authorizer, check_credentials_server, realm_is_trusted, token_flow
from proa.transfer.challenge import Challenge
from proa.transfer.credentials import Credentials, credentials_from_header, credentials_from_mapping
from proa.transfer.wire import HttpReply, Origin, origin_of

REGISTRY = Origin("https", "registry.example.com", 443)
SCOPES = ("repository:a/b:pull",)
ME = Credentials(username="me", password="p:w")


def challenge(realm="https://auth.example.com/token?x=1", service="s"):
    return Challenge("bearer", {"realm": realm, "service": service})


def run(flow, *replies):
    """Drive a flow with canned replies; the requests it made and its result."""
    asked = [next(flow), *map(flow.send, replies[:-1])]
    with pytest.raises(StopIteration) as done:
        flow.send(replies[-1])
    return asked, done.value.value


def token(text="t", **more):
    return HttpReply(200, {}, json.dumps({"token": text, **more}).encode())


def test_password_goes_by_basic_in_a_get():
    (request,), got = run(token_flow(challenge(), REGISTRY, ME, SCOPES), token())
    assert request.method == "GET"
    query = parse_qs(urlsplit(request.url).query)
    assert query["scope"] == list(SCOPES)
    assert query["service"] == ["s"]
    assert query["x"] == ["1"]
    assert query["account"] == ["me"]
    assert request.headers["Authorization"] == ME.basic == "Basic bWU6cDp3"
    assert got.header == "Bearer t"


def test_a_login_asks_for_what_stands_for_the_password():
    (request,), got = run(token_flow(challenge(), REGISTRY, ME, SCOPES, offline=True), token(refresh_token="r1"))
    assert parse_qs(urlsplit(request.url).query)["offline_token"] == ["true"]
    assert got.refresh == "r1"
    asked, got = run(
        token_flow(challenge(), REGISTRY, ME, SCOPES, offline=True), HttpReply(405), token(refresh_token="r2")
    )
    assert parse_qs(asked[1].body.decode())["access_type"] == ["offline"]
    assert got.refresh == "r2"
    for odd in (5, "", "a b", "x" * 70000):
        _, got = run(token_flow(challenge(), REGISTRY, ME, SCOPES, offline=True), token(refresh_token=odd))
        assert got.refresh == ""
    authorizer = Authorizer(REGISTRY, ME, offline=True)
    authorizer.learn('Bearer realm="https://auth.example.com/token",service="s"')
    run(authorizer.flow(()), token(refresh_token="r3"))
    assert authorizer.refresh_token == "r3"


def test_anonymous_asks_without_authorization():
    (request,), _ = run(token_flow(challenge("https://elsewhere.test/t"), REGISTRY, None, SCOPES), token())
    assert "Authorization" not in request.headers


def test_password_falls_back_to_oauth2_post():
    asked, got = run(token_flow(challenge(), REGISTRY, ME, SCOPES), HttpReply(404), token(access_token="x"))
    assert [r.method for r in asked] == ["GET", "POST"]
    assert parse_qs(asked[1].body.decode())["grant_type"] == ["password"]
    assert got.header == "Bearer t"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (HttpReply(401), Unauthorized),
        (HttpReply(500), Unavailable),
        (HttpReply(200, {}, b"{}"), Unavailable),
        (HttpReply(200, {}, b"[]"), Unavailable),
        (HttpReply(200, {}, b'{"token":"a b"}'), Unavailable),
        (HttpReply(200, {}, b'{"token":"a\\r\\nX: y"}'), Unavailable),
        (HttpReply(200, {}, b'{"token":"a","token":"b"}'), Invalid),
    ],
)
def test_bad_token_replies(reply, error):
    flow = token_flow(challenge(), REGISTRY, ME, SCOPES)
    next(flow)
    with pytest.raises(error):
        flow.send(reply)


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("https://r.example.com:5000", "https://r.example.com:5001/t", True),
        ("https://r.example.com", "https://evil.com/t", False),
        ("https://r.example.com", "https://evilexample.com/t", False),
        ("https://r.example.com", "https://r.example.com.evil.net/t", False),
        ("https://r.example.com", "http://r.example.com/t", False),
        ("https://r.example.co.uk", "https://evil.co.uk/t", False),
        ("https://r.example.co.uk", "https://auth.example.co.uk/t", True),
        ("https://10.0.0.1", "https://11.0.0.1/t", False),
        ("https://10.0.0.1", "https://10.0.0.1:8443/t", True),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/t", True),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5001/t", False),
        ("https://registry", "https://auth/t", False),
        ("https://r.example.com", "http://127.0.0.1/t", False),
    ],
)
def test_realm_policy(registry, realm, trusted):
    assert realm_is_trusted(origin_of(registry), origin_of(realm)) is trusted
    flow = token_flow(challenge(realm), origin_of(registry), ME, SCOPES)
    if trusted:
        next(flow)
    else:
        with pytest.raises(Denied):
            next(flow)


def test_allowed_realms_still_need_https():
    assert realm_is_trusted(REGISTRY, origin_of("https://sso.test/t"), ["sso.test"])
    assert not realm_is_trusted(REGISTRY, origin_of("http://sso.test/t"), ["sso.test"])


@pytest.mark.parametrize(
    "url", ["", "ftp://x/", "https://", "https://u:p@x/", "https://x:y/", "//x/", "https://x\\y/", "https://x/\n"]
)
def test_odd_urls_are_no_origin(url):
    with pytest.raises(Invalid):
        origin_of(url)


def test_authorizer_remembers_tokens_by_scope():
    authorizer = Authorizer(REGISTRY, ME)
    assert authorizer.header(SCOPES) is None
    authorizer.learn('Bearer realm="https://auth.example.com/t",service="s"')
    assert authorizer.needs_token
    run(authorizer.flow(SCOPES), token("one", expires_in=300))
    assert authorizer.header(SCOPES) == "Bearer one"
    assert authorizer.header(("repository:a/b:pull,push",)) is None
    authorizer.forget(SCOPES)
    assert authorizer.header(SCOPES) is None


def test_authorizer_prefers_bearer_and_refuses_the_unknown():
    authorizer = Authorizer(REGISTRY, ME)
    authorizer.learn('Basic realm="x", Bearer realm="https://auth.example.com/t"')
    assert authorizer.needs_token
    authorizer.learn('Basic realm="x"')
    assert authorizer.header(()) == ME.basic
    with pytest.raises(Denied, match="negotiate"):
        authorizer.learn("Negotiate")
    with pytest.raises(Unauthorized, match="no basic auth credentials"):
        Authorizer(REGISTRY).learn('Basic realm="x"')


def test_credentials_from_the_header_docker_sends():
    assert credentials_from_header("") is None
    assert credentials_from_header("e30=") is None
    auth = {"username": "me", "password": "p:w", "serveraddress": "registry.example.com"}
    found = credentials_from_header(base64.urlsafe_b64encode(json.dumps(auth).encode()).decode())
    assert (found.username, found.password) == ("me", "p:w")
    assert found.basic == ME.basic
    assert "p:w" not in repr(found)
    assert credentials_from_mapping({"auth": "bWU6cDp3"}).password == "p:w"
    assert credentials_from_mapping({"identitytoken": "r"}).identity_token == "r"


@pytest.mark.parametrize("header", ["***", "bm9wZQ==", "W10=", "eyJ1c2VybmFtZSI6MX0=", "A" * 100_000])
def test_bad_headers_are_refused(header):
    with pytest.raises(Invalid):
        credentials_from_header(header)


def test_control_characters_in_credentials_are_refused():
    with pytest.raises(Invalid):
        credentials_from_mapping({"username": "a\r\nX: y", "password": "p"})


def test_credentials_are_bound_to_their_server():
    def bound(server, registry):
        return check_credentials_server(Credentials(username="me", server=server), registry) is not None

    assert bound("https://index.docker.io/v1/", "docker.io")
    assert bound("registry.example.com:5000", "registry.example.com:5000")
    assert bound("https://Registry.example.com/v2/", "registry.example.com")
    assert bound("", "anything")
    assert not bound("registry.example.com", "registry.example.com:5000")
    assert not bound("https://index.docker.io/v1/", "evil.example")
