"""Listing, filtering, untagging, deleting and pruning images: the docker command hears the same from both engines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import engines
import pytest

pytestmark = [pytest.mark.root, pytest.mark.peers]

NAMES = "--format '{{.Repository}}:{{.Tag}}'"
# `X=…` keeps what the command prints last as $X, which later commands name and their output is written with.
UNTAGGING = """
A=import -m hello TAR a:1
tag a:1 a:2
tag a:1 b:1
rmi $A
rmi b:1
rmi $A
rmi -f $A
A=import TAR a:1
C=create --name c1 --network none a:1 true
rmi a:1
rmi $A
tag a:1 b:1
rmi b:1
rmi -f a:1
images -a NAMES
rmi $A
rm c1
A=import TAR a:1
R=run -d --name c2 --network none a:1 sleep 1000
rmi a:1
rmi $A
rmi -f $A
rmi -f a:1
images NAMES
images -q --no-trunc
rmi $A
kill c2
wait c2
rmi $A
rm c2
rmi $A
images -aq
rmi nothing
rmi -f nothing
rmi sha256:0123
"""
LISTING = """
A=import -c 'LABEL k=v' TAR a:1
tag a:1 zz/a:1
B=import -c 'LABEL k=w' -c 'LABEL other=1' TAR b:1
N=import TAR localhost:5000/x/c:dev
D=import TAR
images NAMES -f dangling=true
images NAMES -f dangling=false
images NAMES -f dangling=x
images NAMES -f label=k
images NAMES -f label=k=v
images NAMES -f label=nope
images NAMES -f label=k -f label=other
images NAMES -f reference=a
images NAMES -f reference=a:*
images NAMES -f 'reference=*/a'
images NAMES -f reference=zz/*
images NAMES -f 'reference=*c*'
images NAMES -f 'reference=[ab]:?'
images NAMES -f reference=a -f reference=b
images NAMES -f before=b:1
images NAMES -f since=a:1
images NAMES -f before=nope
images NAMES -f bogus=1
images NAMES a
images NAMES 'a*'
images --no-trunc --format '{{.ID}} {{.Repository}} {{.Tag}} {{.Containers}} {{.SharedSize}}' a
history --no-trunc --format '{{.ID}}|{{.CreatedBy}}|{{.Comment}}|{{.Size}}' a:1
C=create --name c3 --network none a:1 sh -c 'echo >/x'
K=commit -m committed c3 kid:1
history --no-trunc --format '{{.ID}}|{{.CreatedBy}}|{{.Comment}}|{{.Size}}' kid:1
rm c3
rmi kid:1
history nope
image prune -f --filter bogus=1
C=create --name c1 --network none b:1 true
image prune -f -a --filter label!=k
image prune -f -a --filter until=1h
image prune -f -a --filter label=k=v
images NAMES
rm c1
system prune -f
images NAMES
"""


class Side:
    """One engine under the docker command, with what it called things."""

    def __init__(self, host: str, tar: Path) -> None:
        self._host = host
        self._tar = str(tar)
        self._names: dict[str, str] = {}

    def answer(self, line: str) -> tuple[int, str, str]:
        keep, _, rest = line.partition("=") if re.match(r"[A-Z]=", line) else ("", "", line)
        words = shlex.split(rest.replace("NAMES", NAMES).replace("TAR", self._tar))
        words = [re.sub(r"\$([A-Z])", lambda m: self._names[m[1]], word) for word in words]
        env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        done = subprocess.run(
            ["docker", "-H", self._host, *words], capture_output=True, text=True, env=env, check=False
        )
        if keep:
            self._names[keep] = done.stdout.strip().splitlines()[-1]
        return done.returncode, self._same(done.stdout), self._same(done.stderr).lower()

    def _same(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(value, f"${name}").replace(value.removeprefix("sha256:")[:12], f"${name}")
        # Docker also tells which layers went, and how much that freed of its own kind of store.
        text = re.sub(r"(?im)^deleted: sha256:[0-9a-f]{64}\n", "", text)
        return re.sub(r"(?m)^Total reclaimed space: .*", "Total", text)


@pytest.mark.parametrize("script", [UNTAGGING, LISTING], ids=["untagging", "listing"])
def test_the_same_answers(dockerd: str, engine: engines.PrivateEngine, busybox_tar: Path, script: str) -> None:
    engine.proa("version")
    subprocess.run(["docker", "-H", dockerd, "rmi", "busybox"], check=False, capture_output=True)
    sides = [Side(dockerd, busybox_tar), Side(engine.socket, busybox_tar)]
    for line in script.strip().splitlines():
        theirs, ours = (side.answer(line) for side in sides)
        if " -f " in line or "images" in line:  # images of one second come in any order
            theirs, ours = ((code, "".join(sorted(out)), err) for code, out, err in (theirs, ours))
        assert ours == theirs, line


@pytest.mark.parametrize(
    "words",
    [
        ["image", "prune"],
        ["image", "prune", "-a"],
        ["container", "prune"],
        ["network", "prune"],
        ["volume", "prune"],
        ["volume", "prune", "-a"],
        ["system", "prune"],
        ["system", "prune", "-a", "--volumes"],
        ["system", "prune", "--filter", "until=1h", "--filter", "label=x"],
    ],
)
def test_prune_warns_as_docker_does(box: engines.PrivateEngine, words: list[str]) -> None:
    ours, theirs = box.proa(*words, stdin=b"n\n"), box.docker(*words, stdin=b"n\n")
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
