"""A link named docker to proa, beside the real docker command: the same words asked of the same engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import engines
import pytest

import proa

pytestmark = pytest.mark.root

# What scripts read, to the byte; `_` is a blank within a word.
SAME = (
    "context show",
    "context ls -q",
    "context ls --format {{.Name}}={{.DockerEndpoint}}",
    "context ls --format json",
    "context inspect -f {{.Endpoints.docker.Host}}",
    "context use default",
    "version --format {{.Server.Version}}",
    "version --format {{.Server.Os}}/{{.Server.Arch}}",
    "version -f {{.Client.Context}}",
    "info --format {{.ServerVersion}}",
    "info --format {{.Driver}}_{{.OSType}}_{{.NCPU}}_{{.CgroupVersion}}",
    "info -f {{json_.SecurityOptions}}",
    "ps -a --format {{.ID}}_{{.Names}}_{{.Image}}",
    "ps -a --no-trunc --format {{.ID}}",
    "ps -aq",
    "ps -q --filter name=asked",
    "inspect -f {{.State.Running}}_{{.Name}}_{{.Config.Image}} asked",
    "inspect --format {{json_.Config.Cmd}} asked",
    "inspect -f {{.Id}} busybox",
    "images -q",
    "images --format {{.Repository}}:{{.Tag}}",
    "network ls --format {{.Name}}",
    "volume ls -q",
    "logs asked",
    "exec asked echo hello",
    "exec asked sh -c exit_7",
    "wait nosuch",
    "inspect nosuch",
    "rm nosuch",
    "stop nosuch",
    "image inspect nosuch",
    "nosuch",
    "ps --nosuch",
    "port asked",
)


@pytest.fixture(scope="module")
def link(shared: engines.PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A link to a link to proa; a container that said `ready`."""
    place = tmp_path_factory.mktemp("bin")
    (place / "other").symlink_to(Path(sys.executable).with_name("proa"))
    (place / "docker").symlink_to("other")
    shared.proa("run", "-d", "--name", "asked", "--network", "none", "busybox", "sh", "-c", "echo ready; sleep 600")
    engines.until(lambda: shared.out("logs", "asked") == "ready")
    return place / "docker"


def asked(program: str | Path, engine: engines.PrivateEngine, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**engine.env, "DOCKER_HOST": engine.socket}
    return subprocess.run([program, *words], capture_output=True, text=True, env=env, check=False, timeout=60)


@pytest.mark.parametrize("line", SAME)
def test_scripts_read_the_same(line: str, link: Path, shared: engines.PrivateEngine) -> None:
    words = [word.replace("_", " ") for word in line.split(" ")]
    ours, theirs = asked(link, shared, *words), asked("docker", shared, *words)
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode), (ours.stderr, theirs.stderr)
    if theirs.returncode and "nosuch" in line:
        assert ours.stderr.splitlines()[0] == theirs.stderr.splitlines()[0]


def test_the_version_is_said_in_dockers_words(link: Path, shared: engines.PrivateEngine) -> None:
    for words in (["--version"], ["-v"]):
        assert re.fullmatch(
            rf"Docker version {re.escape(proa.__version__)}, build \w+\n", asked(link, shared, *words).stdout
        )


def test_help_and_exit_statuses_name_docker(link: Path, shared: engines.PrivateEngine) -> None:
    assert asked(link, shared, "ps", "--help").stdout.startswith("Usage:  docker ps [OPTIONS]")
    assert asked(link, shared, "--help").stdout.startswith("Usage:  docker [OPTIONS] COMMAND")
    few = asked(link, shared, "rename", "one")
    assert few.returncode == 1
    assert "'docker rename' requires 2 arguments" in few.stderr
    run = ("run", "--rm", "--network", "none", "busybox")
    assert [asked(link, shared, *run, *words).returncode for words in (["false"], ["nosuch"], ["/etc"])] == [
        1,
        127,
        126,
    ]
    assert asked(link, shared, "run", "--no-such", "busybox").returncode == 125


def test_by_its_own_name_it_is_proa(link: Path, shared: engines.PrivateEngine) -> None:
    assert asked(link.with_name("other"), shared, "--version").stdout == f"proa version {proa.__version__}\n"
    assert asked(link.with_name("other"), shared, "rm", "nosuch").stderr.startswith("proa: ")
