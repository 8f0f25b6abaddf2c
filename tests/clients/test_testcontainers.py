"""testcontainers-python: containers for tests, and the reaper that removes what a crashed test leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine, until
from registries import Registry

pytestmark = [pytest.mark.root, pytest.mark.peers]


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


def test_the_reaper_removes_what_a_crash_leaves(hub: PrivateEngine, registry: Registry, tmp_path: Path) -> None:
    clients.push_reaper(registry, hub, tmp_path)
    done = program(
        """
        import os
        from testcontainers.core.container import DockerContainer
        DockerContainer("busybox").with_command("sleep 1000").start()
        print("up", flush=True)
        os._exit(7)  # nothing is cleaned up by the program itself
        """,
        hub,
        RYUK_RECONNECTION_TIMEOUT="1s",
    )
    assert (done.returncode, done.stdout) == (7, "up\n"), done.stderr
    until(lambda: hub.containers() == [], "the reaper to have removed the container, and itself", 60)
    assert os.path.exists(hub.socket.removeprefix("unix://"))
