"""act, which runs workflows of GitHub Actions in containers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine, free_port

WORKFLOW = """
on: push
jobs:
  first:
    runs-on: ubuntu-latest
    outputs:
      word: ${{ steps.say.outputs.word }}
    services:
      www:
        image: nginx
        ports: ["PORT:80"]
    steps:
      - uses: actions/checkout@v4
      - run: echo "in bash $BASH_VERSION in $GITHUB_WORKSPACE" && test -n "$BASH_VERSION"
      - id: say
        run: |
          echo "word=spoken" >> "$GITHUB_OUTPUT"
          echo "FROM_STEP=kept" >> "$GITHUB_ENV"
      - run: echo "env $FROM_STEP" && cat file && pwd
      - run: for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://127.0.0.1:PORT/ && break; sleep 1; done
      - id: fails
        run: exit 3
        continue-on-error: true
      - run: echo "the step was a ${{ steps.fails.outcome }}"
  second:
    needs: first
    runs-on: ubuntu-latest
    steps:
      - run: echo "heard ${{ needs.first.outputs.word }}"
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.peers,
    pytest.mark.skipif(
        not (clients.act_is_here() or os.environ.get("PROA_ACT")),
        reason="act takes a minute to build: PROA_ACT=1 does it, once a machine",
    ),
]


def test_a_workflow(hub: PrivateEngine, tmp_path: Path) -> None:
    clients.load_tools(hub, tmp_path, "runner:1")
    project = tmp_path / "project"
    (project / ".github/workflows").mkdir(parents=True)
    (project / ".github/workflows/test.yml").write_text(WORKFLOW.replace("PORT", str(free_port())))
    (project / "file").write_text("a file of the project\n")
    (hub.directory / ".actrc").touch()
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(project), *words], check=True)
    argv = [str(clients.act()), "-P", "ubuntu-latest=runner:1", "--pull=false", "--container-daemon-socket", "-"]
    env = {**hub.env, "DOCKER_HOST": hub.socket}
    done = subprocess.run(argv, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = ("in bash 5", "env kept", "a file of the project", "Welcome to nginx!", "was a failure", "heard spoken")
    for words in seen:
        assert words in done.stdout, (words, done.stdout)
    assert hub.containers() == []
    assert hub.out("volume", "ls", "-q") == "act-toolcache"  # which it keeps for the next run
    hub.proa("volume", "rm", "act-toolcache")
    assert hub.out("network", "ls", "-q", "--filter", "type=custom") == ""
