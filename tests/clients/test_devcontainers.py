"""The command behind Visual Studio Code's dev containers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine

pytestmark = [pytest.mark.root, pytest.mark.peers]

CONFIGURATION = {
    "image": "development:1",
    "updateRemoteUserUID": False,
    "remoteEnv": {"REMOTE": "far"},
    "containerEnv": {"INSIDE": "near"},
    "postCreateCommand": "echo made > /made",
    "mounts": ["source=of-development,target=/kept,type=volume"],
    "runArgs": ["--network", "none", "--label", "from=test"],
}


def test_up_and_exec(hub: PrivateEngine, tmp_path: Path) -> None:
    clients.load_tools(hub, tmp_path, "development:1")
    project = tmp_path / "project"
    (project / ".devcontainer").mkdir(parents=True)
    (project / ".devcontainer/devcontainer.json").write_text(json.dumps(CONFIGURATION))
    (project / "file").write_text("a file of the project\n")
    env = {**hub.env, "DOCKER_HOST": hub.socket}

    def devcontainer(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(clients.devcontainers()), words[0], "--workspace-folder", str(project), *words[1:]]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)

    first = devcontainer("up")
    assert first.returncode == 0, (first, hub.log())
    told = json.loads(first.stdout.strip().splitlines()[-1])
    assert told["outcome"] == "success"
    script = "cat file /made; echo $REMOTE $INSIDE; touch /kept/x; exit 7"
    done = devcontainer("exec", "bash", "-c", script)
    assert (done.returncode, done.stdout) == (7, "a file of the project\nmade\nfar near\n"), done
    again = json.loads(devcontainer("up").stdout.strip().splitlines()[-1])
    assert again["containerId"] == told["containerId"]  # found by its labels
    fresh = json.loads(devcontainer("up", "--remove-existing-container").stdout.strip().splitlines()[-1])
    assert fresh["containerId"] != told["containerId"]
    assert devcontainer("exec", "ls", "/kept").stdout == "x\n"
    read = json.loads(devcontainer("read-configuration").stdout.strip().splitlines()[-1])
    assert read["configuration"]["image"] == "development:1"
    hub.proa("rm", "-f", "-v", fresh["containerId"])
    hub.proa("volume", "rm", "of-development")
    assert hub.containers() == []
