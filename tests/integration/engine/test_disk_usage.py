"""`system df`: its parts add up to what du finds in the root, and pruning frees what it promises."""

from __future__ import annotations

import subprocess
from pathlib import Path

import engines
import pytest

import proa

pytestmark = pytest.mark.root


def du(root: Path) -> int:
    done = subprocess.run(["du", "-s", "--block-size=1", str(root)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def settled(engine: engines.PrivateEngine) -> int:
    """What du finds once deletions in the background are done and directories for the next snapshots are made."""
    seen = [0, du(engine.root)]
    engines.until(lambda: not list((engine.root / "trash").iterdir()), "the trash to be emptied")

    def quiet() -> bool:
        seen.append(du(engine.root))
        return seen[-3] == seen[-2] == seen[-1]

    engines.until(quiet, "the root to come to rest")
    return seen[-1]


def test_the_total_is_what_du_finds(busybox: engines.PrivateEngine) -> None:
    with proa.connect(busybox.socket) as engine:
        assert engine.usage().total == settled(busybox)
        busybox.proa("volume", "create", "data")
        script = "dd if=/dev/zero of=/own bs=1M count=3; dd if=/dev/zero of=/v/data bs=1M count=2; ln /own /link"
        busybox.proa("run", "--name", "one", "-v", "data:/v", "--network", "none", "busybox", "sh", "-c", script)
        busybox.proa("commit", "one", "more:1")
        busybox.proa("run", "-d", "--name", "two", "--network", "none", "more:1", "sleep", "1000")
        (busybox.root / "content" / "ingests" / "left").write_bytes(b"x" * 50000)
        expected = settled(busybox)
        found = engine.usage()
        assert found.total == expected
        assert found.images.size + found.containers.size + found.volumes.size + found.engine.size == expected
        assert (found.images.total_count, found.images.active) == (2, 2)
        assert (found.containers.total_count, found.containers.active) == (2, 1)
        assert found.by_volume["data"] >= 2 << 20
        assert found.containers.reclaimable >= 3 << 20  # what `one` wrote
        assert found.engine.size >= 50000
        (busybox.root / "content" / "ingests" / "left").unlink()
        busybox.proa("rm", "-f", "two")
        before = engine.usage()
        assert before.images.active == 1
        busybox.proa("image", "prune", "-af")
        settled(busybox)
        after = engine.usage()
        assert after.images.size <= before.images.size - before.images.reclaimable
        assert after.total == du(busybox.root)


def test_the_tables(busybox: engines.PrivateEngine) -> None:
    busybox.proa("run", "--name", "one", "-v", "data:/v", "--network", "none", "busybox", "sh", "-c", "echo >/f")
    busybox.proa("commit", "one", "more:1")
    lines = [line.split() for line in busybox.out("system", "df").splitlines()]
    assert lines[0] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line[0] for line in lines[1:]] == ["Images", "Containers", "Local", "Build", "Engine", "Total"]
    text = busybox.out("system", "df", "-v")
    docker = busybox.docker("system", "df", "-v").stdout.decode()
    titles = [line for line in docker.splitlines() if line.endswith("usage:") or line.isupper()]
    assert [line for line in text.splitlines() if line.endswith("usage:") or line.isupper()] == titles[:6]
    row = next(line for line in text.splitlines() if line.startswith("more "))
    assert next(line for line in docker.splitlines() if line.startswith("more ")).split() == row.split()
    shared = [int(i["SharedSize"]) for i in _images(busybox)]
    assert shared[0] == shared[1] > 1 << 20
    assert busybox.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}").stdout.split() == [
        *(b"Images 2 Containers 1 Local Volumes 1 Build Cache 0".split())
    ]


def _images(engine: engines.PrivateEngine) -> list[dict[str, int]]:
    import http.client
    import json
    import socket

    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.run_dir / "engine.sock"))
    connection.request("GET", "/v1.47/images/json?shared-size=1")
    found: list[dict[str, int]] = json.loads(connection.getresponse().read())
    connection.close()
    return found
