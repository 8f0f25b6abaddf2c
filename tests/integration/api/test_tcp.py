"""The engine on TCP: mutual TLS with the docker command, bare on loopback, and web pages turned away."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engines import PROA, free_port

pytestmark = pytest.mark.root


def _told(engine: Any, way: str, address: str, **settings: str) -> tuple[str, ...]:
    """Say it by options, which are returned, or in the engine's configuration file."""
    if way == "options":
        words = ["--tcp", address]
        for name, value in settings.items():
            words += ["--tcp-without-tls"] if name == "without-tls" else [f"--{name}", value]
        return tuple(words)
    lines = ["[tcp]", f'address = "{address}"']
    lines += [f"{name} = {value if value == 'true' else repr(value)}" for name, value in settings.items()]
    file = engine.directory / "proa.toml"
    file.write_text("\n".join(lines))
    engine.env["PROA_CONFIG"] = str(file)
    return ()


WAYS = pytest.mark.parametrize("way", ["options", "file"])


@WAYS
def test_docker_by_mutual_tls(fresh: Any, pairs: Path, busybox_tar: Path, way: str) -> None:
    port = free_port()
    files = {"tls-ca": "ca", "tls-cert": "servercert", "tls-key": "serverkey"}
    told = _told(fresh, way, f"127.0.0.1:{port}", **{k: f"{pairs}/{v}.pem" for k, v in files.items()})
    fresh.start("--idle-exit", "0.02", *told)  # which does not count: clients elsewhere could not start it
    body = busybox_tar.read_bytes()
    assert fresh.ask("POST", "/images/create?fromSrc=-&repo=busybox&changes=CMD%20sh", body)[0] == 200
    env = fresh.env | {
        "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(pairs),
    }
    data = os.urandom(2 << 20)
    run = ["docker", "run", "--rm", "-i", "--network", "none", "busybox"]
    done = subprocess.run([*run, "sha256sum"], env=env, input=data, capture_output=True, timeout=60, check=False)
    assert done.stdout.split()[:1] == [hashlib.sha256(data).hexdigest().encode()], (done, fresh.log.read_text())
    done = subprocess.run([*run, "cat"], env=env, input=data, capture_output=True, timeout=60, check=False)
    assert done.stdout == data
    url = f"https://127.0.0.1:{port}/_ping"
    bare = subprocess.run(["curl", "-s", "--cacert", f"{pairs}/ca.pem", url], capture_output=True, check=False)
    assert bare.returncode != 0
    shown = ["curl", "-s", "--cacert", f"{pairs}/ca.pem", "--cert", f"{pairs}/cert.pem", "--key", f"{pairs}/key.pem"]
    assert subprocess.run([*shown, url], capture_output=True, check=True).stdout == b"OK"
    page = [*shown, "-o", "/dev/null", "-w", "%{http_code}", "-H", "Origin: https://evil.example", url]
    assert subprocess.run(page, capture_output=True, check=True).stdout == b"403"
    for program in ("docker", PROA):
        plain = fresh.env | {"DOCKER_HOST": env["DOCKER_HOST"]}
        forgot = subprocess.run([program, "ps"], env=plain, capture_output=True, timeout=60, check=False)
        assert (forgot.returncode, b"HTTP request to an HTTPS server" in forgot.stderr) == (1, True), forgot
    assert fresh.ask("GET", "/_ping")[0] == 200


@WAYS
@pytest.mark.parametrize(
    ("address", "settings", "why"),
    [
        ("127.0.0.1:1", {}, "TCP needs mutual TLS"),
        ("127.0.0.1:1", {"tls-cert": "/c.pem", "tls-key": "/k.pem"}, "TCP needs mutual TLS"),
        ("127.0.0.1:1", {"tls-ca": "/a", "tls-cert": "/c", "tls-key": "/k"}, "cannot use the TLS files"),
        ("0.0.0.0:1", {"without-tls": "true"}, "only on loopback"),
        ("127.0.0.1:1", {"tls-ca": "/a", "without-tls": "true"}, "without certificates"),
        ("nowhere", {"without-tls": "true"}, "not IP:PORT"),
    ],
)
def test_tcp_that_would_let_anybody_in_is_refused(
    fresh: Any, way: str, address: str, settings: dict[str, str], why: str
) -> None:
    told = _told(fresh, way, address, **settings)
    done = subprocess.run(fresh.command(*told), env=fresh.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("proa: " if told else f"proa: configuration file {fresh.directory}/proa.toml, [tcp]")
    assert why in done.stderr
    assert not fresh.root.exists()
    fresh.env.pop("PROA_CONFIG", None)


def test_a_port_that_is_taken_and_options_without_one(fresh: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for words, why in (
            (("--tcp", address, "--tcp-without-tls"), "Address already in use"),
            (("--tcp-without-tls",), "belong to --tcp"),
        ):
            done = subprocess.run(fresh.command(*words), capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, why in done.stderr) == (1, True), done


@WAYS
def test_bare_loopback_turns_web_pages_away(fresh: Any, way: str) -> None:
    port = free_port()
    fresh.start(*_told(fresh, way, f"127.0.0.1:{port}", **{"without-tls": "true"}))
    for headers, status in (
        ("Host: 127.0.0.1", b"200"),
        (f"Host: localhost:{port}", b"200"),
        ("Host: evil.example", b"403"),
        ("Host: localhost\r\nOrigin: http://evil.example", b"403"),
        ("Host: localhost\r\nSec-Fetch-Site: same-origin", b"403"),
    ):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"GET /info HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(100).split()[1] == status, headers
