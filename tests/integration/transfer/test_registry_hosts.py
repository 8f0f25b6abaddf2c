"""Mirrors, certificates and proxies as an administrator configures them, against real servers."""

from __future__ import annotations

import base64
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.errors import Denied, NotFound, Unavailable
from proa.oci import parse_reference
from proa.transfer import Layout, Proxies, Registries, copy, pull, push
from proa.transfer.remote import Remote


def hosts_file(folder: Path, registry: str, text: str) -> Registries:
    (folder / registry).mkdir(parents=True, exist_ok=True)
    (folder / registry / "hosts.toml").write_text(text)
    return Registries(certs_dirs=(folder,))


def not_there(reference: Any, registries: Registries) -> bool:
    """The registry has answered, and has no such image."""
    with pytest.raises(NotFound):
        Remote(reference, registries=registries).resolve()
    return True


def paths(fake: Any, kind: str) -> list[str]:
    return [path for _, path, _ in fake.server.asked if f"/{kind}/" in path]


def test_a_pull_through_host_for_any_registry(
    fake_registry: Any, storage: Any, make_image: Any, tmp_path: Path
) -> None:
    """The registry itself is never asked, so it need not exist; the cache is told whose image it is."""
    made = make_image(2)
    cache = fake_registry(made)
    text = f'[host."http://{cache.server.host}"]\n[host."http://{cache.server.host}".header]\nx-key = "k"\n'
    reference = parse_reference("registry.invalid/proa/test:v1")
    image = pull(storage, reference, registries=hosts_file(tmp_path / "certs", "_default", text))
    assert (image.name, image.descriptor.digest) == ("registry.invalid/proa/test:v1", made.digest)
    asked = cache.server.asked
    assert all("ns=registry.invalid" in path for _, path, _ in asked if path != "/v2/"), asked
    assert all(headers.get("x-key") == "k" for _, _, headers in asked)


def test_a_host_that_only_pulls_does_not_resolve(
    fake_registry: Any, storage: Any, make_image: Any, tmp_path: Path
) -> None:
    made = make_image(2)
    cache, own = fake_registry(made), fake_registry(made)
    text = f'[host."http://{cache.server.host}"]\ncapabilities = ["pull"]\n'
    pull(storage, parse_reference(own.reference), registries=hosts_file(tmp_path, own.server.host, text))
    assert [p for p in paths(own, "manifests") if p.endswith("/v1")]
    assert not [p for p in paths(cache, "manifests") if "/v1" in p]
    assert len(paths(cache, "blobs")) == 3
    assert paths(own, "blobs") == []


def test_a_hosts_headers_do_not_follow_a_redirect(
    fake_registry: Any, start_server: Any, send_reply: Any, storage: Any, make_image: Any, tmp_path: Path
) -> None:
    made = make_image(1)
    cache = fake_registry(made)
    layer = made.manifest["layers"][0]["digest"]
    other = start_server(lambda handler, body: send_reply(handler, 200, made.blobs[layer]))
    blob = cache.blob

    def redirect(handler: Any, name: str, data: bytes) -> None:
        if name == layer:
            send_reply(handler, 307, b"", {"Location": f"http://{other.host}/bucket/x"})
        else:
            blob(handler, name, data)

    cache.blob = redirect
    text = f'[host."http://{cache.server.host}".header]\nx-key = "secret"\nauthorization = "Basic c2VjcmV0"\n'
    pull(
        storage,
        parse_reference("registry.invalid/proa/test:v1"),
        registries=hosts_file(tmp_path / "c", "_default", text),
    )
    assert cache.server.asked[-1][2]["authorization"] == "Basic c2VjcmV0"
    assert len(other.asked) == 1
    assert not {"x-key", "authorization"} & set(other.asked[0][2])


def test_a_dead_host_is_asked_once(fake_registry: Any, storage: Any, make_image: Any, tmp_path: Path) -> None:
    made = make_image(4)
    own = fake_registry(made)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        text = f'[host."http://127.0.0.1:{closed.getsockname()[1]}"]\n'
        pull(storage, parse_reference(own.reference), registries=hosts_file(tmp_path, own.server.host, text))
    assert len(paths(own, "blobs")) == 5


def test_a_server_with_a_path(
    start_server: Any, send_reply: Any, make_image: Any, tmp_path: Path, storage: Any
) -> None:
    made = make_image(1)

    def answer(handler: Any, body: bytes) -> None:
        front, _, name = handler.path.rpartition("/")
        if handler.path == "/api/oci/":
            return send_reply(handler, 200, b"{}")
        assert front.startswith("/api/oci/proa/test/")
        data = made.blobs[made.digest if name == "v1" else name]
        return send_reply(handler, 200, data, {"Content-Type": made.root["mediaType"]})

    server = start_server(answer)
    settings = hosts_file(
        tmp_path / "certs", "reg.invalid", f'server = "http://{server.host}/api/oci"\noverride_path = true\n'
    )
    assert (
        pull(storage, parse_reference("reg.invalid/proa/test:v1"), registries=settings).descriptor.digest == made.digest
    )


def test_pushes_go_to_the_registry_unless_a_host_takes_them(
    start_registry: Any, storage: Any, make_image: Any, tmp_path: Path
) -> None:
    cache, own = start_registry(), start_registry()
    made = make_image(1, seed="push-hosts")
    image = pull(storage, parse_reference(cache.put(made, "proa/a:1")))
    reference = parse_reference(f"{own.host}/proa/pushed:1")
    storage.images.put(reference.name, image.descriptor)
    push(storage, reference, registries=hosts_file(tmp_path, own.host, f'[host."http://{cache.host}"]\n'))
    assert Remote(reference).resolve().digest == made.digest
    other = parse_reference(f"{own.host}/proa/elsewhere:1")
    storage.images.put(other.name, image.descriptor)
    text = f'[host."http://{cache.host}"]\ncapabilities = ["push"]\n'
    push(storage, other, registries=hosts_file(tmp_path, own.host, text))
    assert Remote(parse_reference(f"{cache.host}/proa/elsewhere:1")).resolve().digest == made.digest


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority `ca.crt` and what it signed: server.crt for localhost and registry.test, client.crt."""
    folder = tmp_path_factory.mktemp("authority")

    def openssl(*args: str) -> None:
        subprocess.run(["/usr/bin/openssl", *args], cwd=folder, capture_output=True, check=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=proa test")
    for name, extension in (
        ("server", "subjectAltName=DNS:localhost,DNS:registry.test"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        (folder / f"{name}.ext").write_text(extension + "\n")
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def guarded(authority: Path, tmp_path_factory: pytest.TempPathFactory, registry_type: Any) -> Iterator[Any]:
    """A docker-registry with TLS that lets in only who has a certificate of the authority."""
    files = {name: str(authority / file) for name, file in (("certificate", "server.crt"), ("key", "server.key"))}
    found = registry_type(tmp_path_factory.mktemp("tls"), tls={**files, "clientcas": [str(authority / "ca.crt")]})
    yield found
    found.close()


def test_certificates_in_a_hosts_file(guarded: Any, authority: Path, make_image: Any, tmp_path: Path) -> None:
    made = make_image(2, seed="tls")
    reference = parse_reference(f"{guarded.host}/proa/tls:1")
    layout = Layout(made.write(tmp_path / "in"))
    with pytest.raises(Unavailable, match="trusted connection"):
        Remote(reference).resolve()
    only_ca = f'server = "https://{guarded.host}"\nca = "{authority}/ca.crt"\n'
    with pytest.raises(Unavailable):
        Remote(reference, registries=hosts_file(tmp_path, guarded.host, only_ca)).resolve()
    whole = only_ca + f'client = [["{authority}/client.crt", "{authority}/client.key"]]\n'
    settings = hosts_file(tmp_path, guarded.host, whole)
    copy(layout, Remote(reference, registries=settings))
    assert Remote(reference, registries=settings).resolve().digest == made.digest

    unchecked = whole.replace(f'ca = "{authority}/ca.crt"', "skip_verify = true")
    assert Remote(reference, registries=hosts_file(tmp_path, guarded.host, unchecked)).resolve().digest == made.digest
    missing = whole.replace("client.key", "none.key")
    with pytest.raises(Unavailable, match=r"client\.crt"):
        Remote(reference, registries=hosts_file(tmp_path, guarded.host, missing)).resolve()


def test_certificates_in_dockers_layout(guarded: Any, authority: Path, tmp_path: Path) -> None:
    reference = parse_reference(f"{guarded.host}/proa/none:1")
    folder = tmp_path / guarded.host
    folder.mkdir()
    for name, source in (("ca.crt", "ca.crt"), ("me.cert", "client.crt"), ("me.key", "client.key")):
        (folder / name).write_bytes((authority / source).read_bytes())
    settings = Registries(certs_dirs=(tmp_path,))
    assert not_there(reference, settings)
    (folder / "me.key").unlink()
    with pytest.raises(Unavailable, match=r"no me\.key beside it"):
        Remote(reference, registries=settings).resolve()


def test_an_insecure_registry_is_not_checked(guarded: Any, authority: Path, tmp_path: Path) -> None:
    text = f'client = [["{authority}/client.crt", "{authority}/client.key"]]\n'
    hosts_file(tmp_path, guarded.host, text)
    settings = Registries(certs_dirs=(tmp_path,), insecure=(guarded.host,))
    assert not_there(parse_reference(f"{guarded.host}/proa/none:1"), settings)


class ProxyServer:
    """An HTTP proxy: notes what it is asked for, and leads all of it to one place on loopback."""

    def __init__(self, port: int) -> None:
        self.asked: list[tuple[str, str]] = []
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://sea:salt@127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            first = b""
            while b"\r\n\r\n" not in first:
                first += client.recv(65536)
            lines = first.decode("latin-1").split("\r\n")
            secret = next((line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-auth")), "")
            self.asked.append((" ".join(lines[0].split()[:2]), secret))
            if lines[0].startswith("CONNECT"):
                client.sendall(b"HTTP/1.1 200 go on\r\n\r\n")
            else:
                server.sendall(first)
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy_to() -> Iterator[Callable[[int], ProxyServer]]:
    started: list[ProxyServer] = []

    def start(port: int) -> ProxyServer:
        started.append(ProxyServer(port))
        return started[-1]

    yield start
    for proxy in started:
        proxy.close()


def test_a_proxy_for_tls(guarded: Any, authority: Path, proxy_to: Any, tmp_path: Path, monkeypatch: Any) -> None:
    proxy = proxy_to(guarded.port)
    text = f'ca = "{authority}/ca.crt"\nclient = [["{authority}/client.crt", "{authority}/client.key"]]\n'
    hosts_file(tmp_path, "registry.test", text)
    reference = parse_reference("registry.test/proa/none:1")
    configured = Registries(certs_dirs=(tmp_path,), proxies=Proxies(https=proxy.url))
    assert not_there(reference, configured)
    assert proxy.asked == [("CONNECT registry.test:443", "Basic " + base64.b64encode(b"sea:salt").decode())]
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert not_there(reference, Registries(certs_dirs=(tmp_path,)))
    assert len(proxy.asked) == 2
    monkeypatch.setenv("NO_PROXY", "registry.test")
    with pytest.raises(Unavailable, match="cannot reach"):
        Remote(reference, registries=Registries(certs_dirs=(tmp_path,))).resolve()
    assert len(proxy.asked) == 2


def test_a_proxy_for_plain_http(fake_registry: Any, proxy_to: Any, make_image: Any) -> None:
    made = make_image(1)

    def absolute(handler: Any, body: bytes) -> None:
        handler.path = handler.path.removeprefix("http://registry.test")
        answer(handler, body)

    fake = fake_registry(made)
    answer = fake.answer
    proxied = type(fake.server)(absolute)
    try:
        proxy = proxy_to(proxied.port)
        settings = Registries(certs_dirs=(), proxies=Proxies(http=proxy.url))
        found = Remote(parse_reference("registry.test/proa/test:v1"), plain_http=True, registries=settings).resolve()
        assert found.digest == made.digest
        assert proxy.asked[0][0] == "GET http://registry.test/v2/"
    finally:
        proxied.close()


def test_a_name_that_leads_to_this_machine_is_still_refused_without_one(tmp_path: Path, monkeypatch: Any) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1", *a, **k))
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = f'server = "http://reg.invalid:{server.getsockname()[1]}"\n'
        with pytest.raises(Denied, match="address of this machine"):
            Remote(parse_reference("reg.invalid/x:1"), registries=hosts_file(tmp_path, "reg.invalid", text)).resolve()
