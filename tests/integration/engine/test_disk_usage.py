"""`system df`: its parts add up to what du finds in the root, and pruning frees what it promises."""

from __future__ import annotations

import subprocess
from pathlib import Path

import engines
import pytest

import proa
from proa.client.models import DiskUsage

pytestmark = pytest.mark.root


def du(root: Path) -> int:
    done = subprocess.run(["du", "-s", "--block-size=1", str(root)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def measured(engine: engines.PrivateEngine, client: proa.Client) -> DiskUsage:
    """What the engine says, at a moment when du found the same before and after: both must agree then."""
    engines.until(lambda: not list((engine.root / "trash").iterdir()), "the trash to be emptied")

    def agreed() -> DiskUsage | None:
        before, found, after = du(engine.root), client.usage(), du(engine.root)
        if before != after:
            return None  # deleted or made in the background meanwhile
        assert found.total == before
        return found

    usage: DiskUsage = engines.until(agreed, "the root to come to rest")
    return usage


def test_the_total_is_what_du_finds(busybox: engines.PrivateEngine) -> None:
    with proa.connect(busybox.socket) as engine:
        measured(busybox, engine)
        busybox.proa("volume", "create", "data")
        script = "dd if=/dev/zero of=/own bs=1M count=3; dd if=/dev/zero of=/v/data bs=1M count=2; ln /own /link"
        busybox.proa("run", "--name", "one", "-v", "data:/v", "--network", "none", "busybox", "sh", "-c", script)
        busybox.proa("commit", "one", "more:1")
        busybox.proa("run", "-d", "--name", "two", "--network", "none", "more:1", "sleep", "1000")
        (busybox.root / "content" / "ingests" / "left").write_bytes(b"x" * 50000)
        found = measured(busybox, engine)
        assert found.images.size + found.containers.size + found.volumes.size + found.engine.size == found.total
        assert (found.images.total_count, found.images.active) == (2, 2)
        assert (found.containers.total_count, found.containers.active) == (2, 1)
        assert found.by_volume["data"] >= 2 << 20
        assert found.containers.reclaimable >= 3 << 20  # what `one` wrote
        assert found.engine.size >= 50000
        (busybox.root / "content" / "ingests" / "left").unlink()
        busybox.proa("rm", "-f", "two")
        before = measured(busybox, engine)
        assert before.images.active == 1
        busybox.proa("image", "prune", "-af")
        after = measured(busybox, engine)
        assert after.images.size <= before.images.size - before.images.reclaimable


def titles(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.endswith("usage:") or line.isupper()]


def sizes(text: str) -> list[list[str]]:
    """The images' rows from their sizes on: ages change while one looks."""
    rows = [line.partition(" ago ") for line in text.splitlines() if line.startswith(("more ", "busybox "))]
    return [[name.split()[0], *rest.split()] for name, _, rest in rows]


def test_the_tables(busybox: engines.PrivateEngine) -> None:
    busybox.proa("run", "--name", "one", "-v", "data:/v", "--network", "none", "busybox", "sh", "-c", "echo >/f")
    busybox.proa("commit", "one", "more:1")
    lines = [line.split() for line in busybox.out("system", "df").splitlines()]
    assert lines[0] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line[0] for line in lines[1:]] == ["Images", "Containers", "Local", "Build", "Engine", "Total"]
    text = busybox.out("system", "df", "-v")
    docker = busybox.docker("system", "df", "-v").stdout.decode()
    assert titles(text) == titles(docker)[:6]
    assert sizes(text) == sizes(docker)
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
