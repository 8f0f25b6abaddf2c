"""testcontainers-python: containers for tests, and the reaper that removes what a crashed test leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine, until
from registries import Registry

pytestmark = [pytest.mark.root, pytest.mark.peers]
needs_ryuk = pytest.mark.skipif(
    not clients.named_program("PROA_RYUK"),
    reason="testcontainers' own reaper is in no package index: PROA_RYUK names a static binary of it",
)


@pytest.fixture
def ryuk(hub: PrivateEngine, registry: Registry, tmp_path: Path) -> Iterator[None]:
    """testcontainers' own reaper is what the hub has under its name."""
    program = clients.named_program("PROA_RYUK")
    assert program
    clients.push_ryuk(registry, hub, tmp_path, program)
    yield
    _forget_reaper(hub)


@pytest.fixture
def stand_in(hub: PrivateEngine, registry: Registry, tmp_path: Path) -> Iterator[None]:
    """A reaper of ours, which speaks like it, is what the hub has under its name."""
    clients.push_reaper(registry, hub, tmp_path)
    yield
    _forget_reaper(hub)


def _forget_reaper(hub: PrivateEngine) -> None:
    if left := hub.out("ps", "-aq", "--filter", f"ancestor={clients.reaper_image()}").split():
        hub.proa("rm", "-f", *left)
    hub.proa("rmi", clients.reaper_image(), check=False)  # it was not pulled, if the test failed early


def program(text: str, engine: PrivateEngine, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that uses testcontainers with this engine."""
    env = {
        **engine.env,
        "DOCKER_HOST": engine.socket,
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": engine.socket.removeprefix("unix://"),
        **extra,
    }
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_a_container_for_a_test(hub: PrivateEngine) -> None:
    done = program(
        """
        import urllib.request
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.network import Network
        from testcontainers.core.waiting_utils import wait_for_logs
        with Network() as network, DockerContainer("nginx").with_exposed_ports(80).with_network(
            network).with_network_aliases("www").with_env("A", "b") as web:
            url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
            for _ in range(50):
                try:
                    print(urllib.request.urlopen(url, timeout=5).read().decode().strip())
                    break
                except OSError:
                    import time; time.sleep(0.1)
            print(web.exec(["sh", "-c", "echo $A"]).output.decode().strip())
            with DockerContainer("alpine").with_network(network).with_command("wget -qO- http://www/") as client:
                wait_for_logs(client, "Welcome", timeout=30)
                print("seen")
        """,
        hub,
        TESTCONTAINERS_RYUK_DISABLED="true",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["Welcome to nginx!", "b", "seen"]
    assert hub.containers() == []


@pytest.mark.parametrize("reaper", ["stand_in", pytest.param("ryuk", marks=needs_ryuk)])
def test_the_reaper_removes_what_a_crash_leaves(
    reaper: str, hub: PrivateEngine, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(reaper)
    done = program(
        """
        import os
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.docker_client import DockerClient
        from testcontainers.core.labels import create_labels
        from testcontainers.core.network import Network
        network = Network().create()
        DockerClient().client.volumes.create("of-the-session", labels=create_labels("", {}))
        DockerContainer("busybox").with_network(network).with_volume_mapping("of-the-session", "/v").with_command(
            "sleep 1000").start()
        print("up", flush=True)
        os._exit(7)  # nothing is cleaned up by the program itself
        """,
        hub,
        RYUK_RECONNECTION_TIMEOUT="1s",
    )
    assert (done.returncode, done.stdout) == (7, "up\n"), done.stderr
    until(lambda: hub.containers() == [], "the reaper to have removed the container, and itself", 60)
    assert hub.out("network", "ls", "-q", "--filter", "type=custom") == ""
    assert hub.out("volume", "ls", "-q") == ""
    assert os.path.exists(hub.socket.removeprefix("unix://"))


@needs_ryuk
@pytest.mark.usefixtures("ryuk")
def test_the_reaper_as_testcontainers_finds_the_engine_by_itself(hub: PrivateEngine) -> None:
    text = """
        from testcontainers.core.container import DockerContainer
        with DockerContainer("busybox").with_command("sleep 1000") as box:
            print(box.exec("echo seen").output.decode().strip())
        """
    env = {"DOCKER_HOST": hub.socket, "TESTCONTAINERS_RYUK_PRIVILEGED": "true", "RYUK_RECONNECTION_TIMEOUT": "1s"}
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)]
    done = subprocess.run(argv, env={**hub.env, **env}, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr
    until(lambda: hub.containers() == [], "the reaper to be gone", 60)


@needs_ryuk
@pytest.mark.usefixtures("ryuk")
def test_the_reaper_takes_what_its_filters_name_and_nothing_else(hub: PrivateEngine, busybox_tar: Path) -> None:
    session, other = "org.testcontainers.session-id=ours", "org.testcontainers.session-id=theirs"
    place = f"{hub.socket.removeprefix('unix://')}:/var/run/docker.sock"
    environment = ("-e", "RYUK_RECONNECTION_TIMEOUT=1s")
    hub.proa("run", "-d", "--rm", "--name", "reaper", "-P", *environment, "-v", place, clients.reaper_image())
    until(lambda: b"Started" in hub.proa("logs", "reaper").stdout + hub.proa("logs", "reaper").stderr, "the reaper")
    address, _, port = hub.out("port", "reaper", "8080").split("\n")[0].rpartition(":")
    for name, label in (("ours", session), ("theirs", other)):
        hub.proa("network", "create", "--label", label, name)
        hub.proa("volume", "create", "--label", label, name)
        hub.proa("import", "--change", f"LABEL {label}", "--change", f"ENV A={name}", str(busybox_tar), f"{name}:1")
        options = ("--label", label, "--network", name, "-v", f"{name}:/v", "-v", "/anonymous", "--restart", "always")
        hub.proa("run", "-d", "--name", f"{name}-up", *options, f"{name}:1", "sleep", "1000")
        hub.proa("create", "--name", f"{name}-made", "--label", label, f"{name}:1", "true")
    hub.proa("pause", "ours-up")
    with socket.create_connection((address.replace("0.0.0.0", "127.0.0.1"), int(port))) as connection:
        for line in (f"label={other}&label=never=1", f"label={session}"):  # of one line, all labels must be there
            connection.sendall(f"{line}\n".encode())
            assert connection.recv(100) == b"ACK\n"
        assert "ours-up" in hub.containers()
    until(lambda: "reaper" not in hub.containers(), "the reaper to be done, and gone", 60)
    assert sorted(hub.containers()) == ["theirs-made", "theirs-up"]
    assert hub.out("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}") == "theirs"
    volumes = hub.out("volume", "ls", "-q").split()
    assert (len(volumes), "theirs" in volumes) == (2, True)
    assert hub.out("images", "-q", "ours:1") == ""
    assert hub.out("images", "-q", "theirs:1")
    hub.proa("rm", "-fv", "theirs-made", "theirs-up")
    hub.proa("network", "rm", "theirs")
    hub.proa("volume", "rm", "theirs")
    hub.proa("rmi", "theirs:1")
