"""Docker Compose, unmodified, brings up projects: networks, volumes, health, profiles, scale, logs, exec, down."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine, until

pytestmark = [pytest.mark.root, pytest.mark.peers]

PROJECT = """
services:
  db:
    image: busybox
    command: ["sh", "-c", "mkdir -p /data && echo from-db > /data/index.html && exec httpd -f -p 8000 -h /data"]
    volumes: ["data:/data"]
    networks: {back: {aliases: [database]}}
    healthcheck:
      {test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8000/index.html"], interval: 1s, timeout: 5s, retries: 30}
    environment: {MODE: production}
    labels: {tier: data}
    stop_grace_period: 1s
  web:
    image: nginx
    depends_on: {db: {condition: service_healthy}}
    networks: [back, front]
    ports: ["127.0.0.1::80"]
    restart: unless-stopped
    configs: [{source: settings, target: /etc/settings}]
    secrets: [token]
    tmpfs: [/scratch]
    stop_grace_period: 1s
  job:
    image: alpine
    command: ["sh", "-c", "wget -qO- http://database:8000/index.html; echo job $$MODE; exit 3"]
    environment: {MODE: batch}
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
    profiles: [batch]
networks: {back: {internal: true}, front: {}}
volumes: {data: {labels: {keep: "no"}}}
configs: {settings: {content: "key=value"}}
secrets: {token: {file: ./token.txt}}
"""


class Project:
    """One project directory and the command that works on it."""

    def __init__(self, engine: PrivateEngine, program: Path, directory: Path, name: str) -> None:
        self._argv = [str(program), "-p", name]
        self._directory = directory
        self._env = {**engine.env, "DOCKER_HOST": engine.socket}
        (directory / "compose.yaml").write_text(PROJECT)
        (directory / "token.txt").write_text("s3cret")

    def run(self, *words: str, status: int = 0) -> str:
        """What a command prints; it must end with this status."""
        done = subprocess.run(
            [*self._argv, *words],
            cwd=self._directory,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, tuple[str, str, int]]:
        """State, health and exit code of the project's containers, by name."""
        lines = self.run("ps", "-a", "--format", "json").splitlines()
        rows = [json.loads(line) for line in lines]
        return {row["Name"]: (row["State"], row["Health"], row["ExitCode"]) for row in rows}


@pytest.fixture(params=sorted(clients.COMPOSE))
def project(request: pytest.FixtureRequest, hub: PrivateEngine, tmp_path: Path) -> Iterator[Project]:
    name = f"shop{request.param}"
    made = Project(hub, clients.compose(request.param), tmp_path, name)
    yield made
    made.run("--profile", "*", "down", "-v", "--remove-orphans", "-t", "0")
    assert hub.containers() == []
    assert name not in hub.out("network", "ls")
    assert name not in hub.out("volume", "ls")


def test_a_project_of_three_services(project: Project, hub: PrivateEngine) -> None:
    name = project._argv[-1]
    project.run("up", "-d", "--quiet-pull")
    states = project.states()
    assert {key: value[:2] for key, value in states.items()} == {
        f"{name}-db-1": ("running", "healthy"),
        f"{name}-web-1": ("running", ""),
    }
    address = project.run("port", "web", "80").strip()
    page = urllib.request.urlopen(f"http://{address}/", timeout=10).read()
    assert page == b"Welcome to nginx!\n"
    assert project.run("exec", "-T", "web", "wget", "-qO-", "http://database:8000/index.html") == "from-db\n"
    assert project.run("exec", "-T", "web", "cat", "/etc/settings", "/run/secrets/token") == "key=values3cret"
    # A profile's service, its output and its status.
    project.run("--profile", "batch", "up", "-d")
    until(lambda: project.states()[f"{name}-job-1"][0] == "exited")
    assert project.states()[f"{name}-job-1"][2] == 3
    logs = project.run("--profile", "batch", "logs", "--no-color", "--no-log-prefix", "job")
    assert logs.split() == ["from-db", "job", "batch"]
    assert project.run("run", "--rm", "-T", "job", "echo", "once").strip().endswith("once")
    # What is up is left alone; more of it, then less.
    identity = hub.inspect(f"{name}-db-1")["Id"]
    project.run("up", "-d", "--scale", "db=3")
    assert {f"{name}-db-{n}" for n in (1, 2, 3)} <= set(project.states())
    assert hub.inspect(f"{name}-db-1")["Id"] == identity
    addresses = project.run("exec", "-T", "web", "nslookup", "database").count("Address")
    assert addresses >= 3
    project.run("up", "-d", "--scale", "db=1")
    assert f"{name}-db-2" not in project.states()


def test_what_is_done_with_a_project(project: Project, hub: PrivateEngine, tmp_path: Path) -> None:
    name = project._argv[-1]
    project.run("up", "-d", "--wait", "--quiet-pull", "db")
    assert json.loads(project.run("ls", "--format", "json"))[0]["Name"] == name
    (tmp_path / "note").write_text("copied")
    project.run("cp", "note", "db:/tmp/note")
    assert project.run("exec", "-T", "db", "cat", "/tmp/note") == "copied"
    project.run("cp", "db:/data/index.html", "back")
    assert (tmp_path / "back").read_text() == "from-db\n"
    project.run("pause", "db")
    assert project.states()[f"{name}-db-1"][0] == "paused"
    project.run("unpause", "db")
    assert "httpd" in project.run("top", "db")
    assert "busybox" in project.run("images", "db")
    project.run("restart", "-t", "0", "db")
    project.run("stop", "-t", "0")
    assert project.states()[f"{name}-db-1"][0] == "exited"
    project.run("start")
    before = hub.inspect(f"{name}-db-1")["Id"]
    project.run("up", "-d", "--force-recreate", "db")
    assert hub.inspect(f"{name}-db-1")["Id"] != before
    assert project.run("exec", "-T", "db", "cat", "/data/index.html") == "from-db\n"
    project.run("kill", "-s", "KILL", "db")
    until(lambda: project.states()[f"{name}-db-1"][0] == "exited")
    assert project.states()[f"{name}-db-1"][2] == 137
    project.run("rm", "-f", "-s", "db")
    assert project.states() == {}
    # A change of the project is what is made anew, and nothing else.
    project.run("up", "-d", "web", "--quiet-pull")
    web = hub.inspect(f"{name}-web-1")["Id"]
    text = (tmp_path / "compose.yaml").read_text().replace("MODE: production", "MODE: other")
    (tmp_path / "compose.yaml").write_text(text)
    project.run("up", "-d", "--no-deps", "db")
    assert project.run("exec", "-T", "db", "sh", "-c", "echo $MODE") == "other\n"
    assert hub.inspect(f"{name}-web-1")["Id"] == web


def test_failures_are_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {image: busybox, command: [no-such-program]}}")
    with pytest.raises(AssertionError, match="executable file not found"):
        project.run("up", "-d", "--quiet-pull")
    (tmp_path / "compose.yaml").write_text("services: {a: {image: nobody-has-this}}")
    with pytest.raises(AssertionError, match="Error"):
        project.run("up", "-d")
    (tmp_path / "compose.yaml").write_text(PROJECT)
