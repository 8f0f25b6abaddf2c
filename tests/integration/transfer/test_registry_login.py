"""Credentials reach whom they are for, and nobody else."""

import ssl
import subprocess

import pytest

from proa.errors import Denied, ProaError, Unauthorized, Unavailable
from proa.oci import parse_reference
from proa.transfer import Credentials, Layout, Registries, check_login, copy, pull, push
from proa.transfer.remote import Remote


def credentials(login, **more):
    return Credentials(username=login[0], password=login[1], **more)


@pytest.fixture(scope="module")
def htpasswd(tmp_path_factory):
    """A file that lets sailor in with Salt+Wind:1 (bcrypt, the only kind the registry reads)."""
    bcrypt = subprocess.run(
        ["/usr/bin/perl", "-e", 'print crypt("Salt+Wind:1", q($2y$04$abcdefghijklmnopqrstuu))'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    path = tmp_path_factory.mktemp("auth") / "htpasswd"
    path.write_text(f"sailor:{bcrypt}\n")
    assert bcrypt.startswith("$2y$")
    return path


def test_basic_auth_at_a_real_registry(start_registry, htpasswd, make_image, tmp_path, login):
    registry = start_registry({"htpasswd": {"realm": "proa", "path": str(htpasswd)}})
    image = make_image(2, seed="basic")
    reference = parse_reference(f"{registry.host}/proa/basic:v1")
    layout = Layout(image.write(tmp_path / "in"))
    copy(layout, Remote(reference, credentials(login)))
    assert Remote(reference, credentials(login)).resolve().digest == image.digest
    with pytest.raises(Unauthorized):
        Remote(reference).resolve()
    with pytest.raises(Unauthorized):
        Remote(reference, Credentials(username="sailor", password="wrong")).resolve()
    with pytest.raises(Unauthorized):
        copy(layout, Remote(reference, Credentials(username="sailor", password="wrong")))
    check_login(registry.host, credentials(login))
    with pytest.raises(Unauthorized):
        check_login(registry.host, Credentials(username="sailor", password="wrong"))


def test_bearer_token_with_password(fake_registry, token_server, storage, make_image, login):
    tokens = token_server()
    made = make_image(3)
    fake = fake_registry(made)
    fake.token_realm = tokens.realm
    image = pull(storage, parse_reference(fake.reference), credentials=credentials(login))
    assert image.descriptor.digest == made.digest
    assert len(tokens.server.asked) == 1  # one token serves all threads
    query = tokens.server.asked[0][1]
    assert "scope=repository%3Aproa%2Ftest%3Apull" in query
    assert "service=fake" in query
    sent = {h.get("authorization", "")[:6] for _, path, h in fake.server.asked if path != "/v2/"}
    assert sent == {"Bearer"}


def test_anonymous_bearer_token(fake_registry, token_server, make_image):
    tokens = token_server(anonymous=True)
    fake = fake_registry(make_image(1))
    fake.token_realm = tokens.realm
    assert Remote(parse_reference(fake.reference)).resolve().digest == fake.image.digest


def test_identity_token_goes_by_post(fake_registry, token_server, make_image):
    tokens = token_server()
    fake = fake_registry(make_image(1))
    fake.token_realm = tokens.realm
    Remote(parse_reference(fake.reference), Credentials(identity_token="refresh")).resolve()
    assert tokens.forms[0]["grant_type"] == ["refresh_token"]
    assert tokens.forms[0]["scope"] == ["repository:proa/test:pull"]


def test_wrong_password_at_the_token_server(fake_registry, token_server, make_image):
    tokens = token_server()
    fake = fake_registry(make_image(1))
    fake.token_realm = tokens.realm
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        Remote(parse_reference(fake.reference), Credentials(username="sailor", password="no")).resolve()


def test_a_ready_registry_token_is_used_as_it_is(fake_registry, make_image):
    fake = fake_registry(make_image(1))
    fake.token_realm = "http://127.0.0.1:9/none"
    Remote(parse_reference(fake.reference), Credentials(registry_token="good-1")).resolve()


def test_foreign_realm_gets_no_credentials(fake_registry, start_server, send_reply, make_image, login):
    thief = start_server(lambda handler, body: send_reply(handler, 200, b'{"token":"good-stolen"}'))
    fake = fake_registry(make_image(1))
    fake.token_realm = f"http://localhost:{thief.port}/token"
    with pytest.raises(Denied, match="not of its domain"):
        Remote(parse_reference(fake.reference), credentials(login)).resolve()
    assert thief.asked == []
    allowed = Remote(
        parse_reference(fake.reference), credentials(login), registries=Registries(token_servers=("localhost",))
    )
    assert allowed.resolve().digest == fake.image.digest


def test_credentials_of_another_server_stay_home(fake_registry, make_image, login):
    fake = fake_registry(make_image(1))
    fake.basic = True
    with pytest.raises(Unauthorized):
        Remote(parse_reference(fake.reference), credentials(login, server="registry.example")).resolve()
    assert not [h for _, _, h in fake.server.asked if "authorization" in h]


def test_redirects_lose_the_authorization(fake_registry, start_server, send_reply, storage, make_image, login):
    made = make_image(1)
    fake = fake_registry(made)
    fake.basic = True
    layer = made.manifest["layers"][0]["digest"]
    other = start_server(lambda handler, body: send_reply(handler, 200, made.blobs[layer]))
    blob = fake.blob

    def redirect(handler, name, data):
        if name != layer:
            return blob(handler, name, data)
        return send_reply(handler, 307, b"", {"Location": f"http://localhost:{other.port}/bucket/x?sig=1"})

    fake.blob = redirect
    pull(storage, parse_reference(fake.reference), credentials=credentials(login))
    assert len(other.asked) == 1
    assert not {"authorization", "cookie"} & set(other.asked[0][2])


def test_upload_location_elsewhere_gets_no_credentials(start_server, send_reply, make_image, tmp_path, login):
    import base64

    made = make_image(1)
    thief = start_server(lambda handler, body: send_reply(handler, 201))

    def answer(handler, body):
        if handler.headers.get("Authorization") != "Basic " + base64.b64encode(":".join(login).encode()).decode():
            return send_reply(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
        if handler.command == "HEAD":
            return send_reply(handler, 404)
        if handler.command == "POST":
            return send_reply(handler, 202, b"", {"Location": f"http://localhost:{thief.port}/upload"})
        return send_reply(handler, 201 if handler.command == "PUT" else 200)

    registry = start_server(answer)
    copy(Layout(made.write(tmp_path / "in")), Remote(parse_reference(f"{registry.host}/proa/x:1"), credentials(login)))
    assert len(thief.asked) == 2
    assert not [h for _, _, h in thief.asked if "authorization" in h]


def test_no_plain_http_for_other_hosts_and_no_credentials_on_it(start_server, send_reply, login, monkeypatch):
    """A name that is not loopback, though it leads here: 443 is closed, so nothing may be said (V07)."""
    server = start_server(lambda handler, body: send_reply(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'}))
    monkeypatch.setattr("proa.transfer.transport.TRIES", 1)
    import socket

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1" if host == "registry.test" else host, *a, **k)
    )
    reference = parse_reference(f"registry.test:{server.port}/x/y:1")
    with pytest.raises(ProaError) as caught:
        Remote(reference, credentials(login)).resolve()
    assert isinstance(caught.value, Denied | Unavailable)
    assert server.asked == []
    # And an address of this machine is refused for a name that is not, also over plain http.
    with pytest.raises(Denied, match="address of this machine"):
        Remote(reference, credentials(login), plain_http=True).resolve()
    assert server.asked == []


def test_unreachable_registry_is_told_as_such():
    with pytest.raises(Unavailable, match="cannot reach"):
        Remote(parse_reference("127.0.0.1:9/x/y:1")).resolve()


def test_push_with_bearer_token_asks_for_push(fake_registry, token_server, storage, make_image, registry, login):
    made = make_image(1, seed="bearer-push")
    image = pull(storage, parse_reference(registry.put(made, "proa/bearer:v1")))
    tokens = token_server()
    fake = fake_registry(made)
    fake.token_realm = tokens.realm
    reference = parse_reference(f"{fake.server.host}/proa/test:v2")
    storage.images.put(reference.name, image.descriptor)
    with pytest.raises(ProaError):
        push(storage, reference, credentials=credentials(login))  # the fake accepts no PUT of a new tag
    assert any("pull%2Cpush" in path for _, path, _ in tokens.server.asked)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that nobody trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", folder / "key", "-out", folder / "crt", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        capture_output=True, check=True,
    )  # fmt: skip
    return folder


def test_tls_is_verified_with_the_hosts_own_ca(start_server, send_reply, certificate, tmp_path, login):
    server = start_server(lambda handler, body: send_reply(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "crt", certificate / "key")
    server.wrap(context)
    reference = parse_reference(f"localhost:{server.port}/x/y:1")
    with pytest.raises(Unavailable, match="trusted connection") as caught:
        Remote(reference, credentials(login)).resolve()
    assert "certs.d" in caught.value.hint
    assert server.asked == []
    folder = tmp_path / f"localhost:{server.port}"
    folder.mkdir()
    (folder / "ca.crt").write_bytes((certificate / "crt").read_bytes())
    with pytest.raises(Unauthorized):
        Remote(reference, credentials(login), registries=Registries(certs_dirs=(tmp_path,))).resolve()
    assert "authorization" in server.asked[-1][2]
