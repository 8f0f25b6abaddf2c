"""Our own clients over TLS: every kind of conversation, by flags, variables and contexts; and who is turned away."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import certificates
import pytest
from engines import PROA, until

import proa

pytestmark = pytest.mark.root


def _proa(
    engine: Any, *args: str, program: str = PROA, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    given = {k: v for k, v in engine.env.items() if not k.startswith("DOCKER_")}
    return subprocess.run([program, *args], env=given | env, input=stdin, capture_output=True, timeout=120, check=False)


def _tls(engine: Any, pairs: Path) -> dict[str, str]:
    return {"PROA_HOST": f"tcp://{engine.address}", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(pairs)}


def test_the_command_line(remote: Any, pairs: Path, tmp_path: Path) -> None:
    env = _tls(remote, pairs)
    data = os.urandom(3 << 20)
    run = ("run", "--rm", "-i", "--network", "none", "busybox")
    assert _proa(remote, *run, "cat", stdin=data, **env).stdout == data
    done = _proa(remote, *run, "sha256sum", stdin=data, **env)
    assert done.stdout.split()[:1] == [hashlib.sha256(data).hexdigest().encode()], done
    assert _proa(remote, *run, "sh", "-c", "echo out; echo err >&2; exit 7", **env).returncode == 7
    assert _proa(remote, "run", "-d", "--name", "far", "--network", "none", "busybox", "sleep", "1000", **env).stdout
    assert _proa(remote, "exec", "-i", "far", "wc", "-c", stdin=data, **env).stdout.strip() == b"%d" % len(data)
    (tmp_path / "file").write_bytes(data)
    _proa(remote, "cp", f"{tmp_path}/file", "far:/file", **env)
    assert (
        _proa(remote, "exec", "far", "sha256sum", "/file", **env).stdout[:64].decode()
        == hashlib.sha256(data).hexdigest()
    )
    assert _proa(remote, "cp", "far:/file", f"{tmp_path}/back", **env).returncode == 0
    assert (tmp_path / "back").read_bytes() == data
    assert b"far" in _proa(remote, "ps", **env).stdout
    assert _proa(remote, "rm", "-f", "far", **env).stdout == b"far\n"
    assert _proa(
        remote, "system", "dial-stdio", stdin=b"GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n", **env
    ).stdout.endswith(b"OK")


def test_flags_and_contexts(remote: Any, pairs: Path, tmp_path: Path) -> None:
    host = f"tcp://{remote.address}"
    ask = ("version", "--format", "{{.Server.Version}}")
    files = ("--tlscacert", f"{pairs}/ca.pem", "--tlscert", f"{pairs}/cert.pem", "--tlskey", f"{pairs}/key.pem")
    version = f"{proa.__version__}\n".encode()
    assert _proa(remote, "-H", host, "--tlsverify", *files, *ask).stdout == version
    assert _proa(remote, "--tls", *files, *ask, DOCKER_HOST=host).stdout == version
    assert _proa(remote, "-H", host, "--tls", *ask, DOCKER_CERT_PATH=str(pairs)).stdout == version
    assert _proa(remote, "-H", host, "--tlsverify=false", *ask, DOCKER_CERT_PATH=str(pairs)).stdout == version
    config = {"DOCKER_CONFIG": str(tmp_path)}
    made = ["docker", "context", "create", "far", "--description", "elsewhere"]
    made += ["--docker", f"host={host},ca={pairs}/ca.pem,cert={pairs}/cert.pem,key={pairs}/key.pem"]
    subprocess.run(made, env=remote.env | config, check=True, capture_output=True)
    assert _proa(remote, "--context", "far", *ask, **config).stdout == version
    assert _proa(remote, *ask, DOCKER_CONTEXT="far", **config).stdout == version
    both = _proa(remote, "--context", "far", "-H", host, "ps", **config)
    assert (both.returncode, b"conflicting options" in both.stderr) == (1, True)
    link = str(tmp_path / "docker")
    Path(link).symlink_to(PROA)
    assert _proa(remote, "context", "use", "far", program=link, **config).stdout == b"far\n"
    assert _proa(remote, *ask, program=link, **config).stdout == version
    refused = _proa(remote, "context", "use", "far", **config)
    assert (refused.returncode, b"--context far" in refused.stderr) == (1, True)
    bare = {name: value for name, value in remote.env.items() if name != "DOCKER_HOST"} | config
    for words in (
        ("context", "show"),
        ("context", "ls", "--format", "{{.Name}} {{.Current}} {{.Description}} {{.DockerEndpoint}}"),
    ):
        theirs = subprocess.run(["docker", *words], env=bare, capture_output=True, check=True).stdout.splitlines()
        ours = _proa(remote, *words, program=link, **config).stdout.splitlines()
        assert len(ours) == len(theirs)
        assert ours[-1] == theirs[-1]  # the one before is `default`, where each has its own engine
    shown = _proa(remote, "context", "inspect", "far", "--format", "{{json .TLSMaterial}}", **config)
    assert shown.stdout == b'{"docker":["ca.pem","cert.pem","key.pem"]}\n'
    gone = _proa(remote, "--context", "none", "ps", **config)
    assert (gone.returncode, b'context "none": context not found' in gone.stderr) == (1, True)


def test_the_sdk(remote: Any, pairs: Path) -> None:
    tls = proa.Tls(ca=f"{pairs}/ca.pem", certificate=f"{pairs}/cert.pem", key=f"{pairs}/key.pem")
    host = f"tcp://{remote.address}"
    data = os.urandom(1 << 20)
    with proa.connect(host, tls=tls) as engine:
        assert engine.containers.run("busybox", ["cat"], network="none", input=data).stdout == data
        container = engine.containers.run_detached("busybox", ["sleep", "1000"], network="none")
        assert container.exec(["cat"], input=data).stdout == data
        with container.open_exec(["cat"], tty=True) as session:
            session.resize(10, 20)
            session.write(b"typed\n")
            assert next(session).data.startswith(b"typed")
        container.remove(force=True)

    async def ask() -> bytes:
        async with proa.connect_async(host, tls=tls) as engine:
            result = await engine.containers.run("busybox", ["cat"], network="none", input=data)
            return result.stdout

    assert asyncio.run(ask()) == data
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "tls"], "the relays to end")


def test_who_is_turned_away_is_told_why(remote: Any, pairs: Path, tmp_path: Path) -> None:
    certificates.make_pairs(tmp_path)
    host, port = remote.address.split(":")
    mine = {"certificate": f"{pairs}/cert.pem", "key": f"{pairs}/key.pem"}
    ca = f"{pairs}/ca.pem"
    for where, tls, why in (
        (host, proa.Tls(ca=ca), "certificate required"),
        (host, proa.Tls(ca=ca, certificate=f"{tmp_path}/cert.pem", key=f"{tmp_path}/key.pem"), "unknown ca"),
        (host, proa.Tls(ca=f"{tmp_path}/ca.pem", **mine), "is not trusted"),
        ("127.0.0.2", proa.Tls(ca=ca, **mine), "cannot connect"),
    ):
        with proa.connect(f"tcp://{where}:{port}", tls=tls) as engine, pytest.raises(proa.Unavailable, match=why):
            engine.version()

        async def ask(where: str = where, tls: proa.Tls = tls) -> None:
            async with proa.connect_async(f"tcp://{where}:{port}", tls=tls) as engine:
                await engine.version()

        with pytest.raises(proa.Unavailable, match=why):
            asyncio.run(ask())
    with socket.create_server((host, 0)) as plain:

        def answer() -> None:
            client, _ = plain.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"tcp://{host}:{plain.getsockname()[1]}"
        with proa.connect(address, tls=proa.Tls(ca=ca)) as engine, pytest.raises(proa.Unavailable, match="TLS with"):
            engine.version()
        thread.join()
