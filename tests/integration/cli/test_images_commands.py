"""The commands around images, and what their tables and templates show."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import engines
import pytest

pytestmark = pytest.mark.root


def test_listing(shared: engines.PrivateEngine) -> None:
    lines = shared.out("images").splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert lines[1].split()[:2] == ["busybox", "latest"]
    identity = shared.out("images", "-q", "--no-trunc", "busybox")
    assert identity == shared.out("inspect", "--format", "{{.Id}}", "busybox")
    assert shared.out("images", "-q") == identity.removeprefix("sha256:")[:12]
    record = json.loads(shared.out("images", "--format", "json"))
    assert record["Repository"] == "busybox"
    assert shared.out("images", "--format", "{{.Repository}}:{{.Tag}}") == "busybox:latest"
    assert shared.out("images", "nothing") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"


def test_tags_come_and_go(shared: engines.PrivateEngine) -> None:
    shared.proa("tag", "busybox", "localhost:5000/other/name:2")
    assert shared.out("images", "--format", "{{.Tag}}", "localhost:5000/other/name") == "2"
    assert shared.out("rmi", "localhost:5000/other/name:2") == "Untagged: localhost:5000/other/name:2"
    done = shared.proa("rmi", "localhost:5000/other/name:2", check=False)
    assert done.returncode == 1
    assert "No such image: localhost:5000/other/name:2" in done.stderr.decode()
    done = shared.proa("tag", "busybox", "UPPER", check=False)
    assert done.returncode == 1


def test_save_and_load(shared: engines.PrivateEngine, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    shared.proa("save", "-o", str(path), "busybox")
    assert path.stat().st_mode & 0o777 in (0o600, 0o644)
    streamed = shared.proa("save", "busybox").stdout
    with tarfile.open(path) as tar:
        assert "manifest.json" in tar.getnames()
    identity = shared.out("images", "-q", "--no-trunc", "busybox")
    shared.proa("rmi", "-f", "busybox")
    assert shared.out("load", "-i", str(path)) == "Loaded image: busybox:latest"
    assert shared.out("images", "-q", "--no-trunc", "busybox") == identity
    assert shared.out("load", stdin=streamed) == "Loaded image: busybox:latest"
    assert not [p for p in tmp_path.iterdir() if p != path]


def test_a_save_that_fails_leaves_no_file(shared: engines.PrivateEngine, tmp_path: Path) -> None:
    done = shared.proa("save", "-o", str(tmp_path / "x.tar"), "no-such-image", check=False)
    assert done.returncode == 1
    assert "No such image" in done.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_import_changes_and_history(shared: engines.PrivateEngine, busybox_tar: Path) -> None:
    identity = shared.out("import", "-c", 'CMD ["echo", "made"]', "-m", "a message", str(busybox_tar), "made:1")
    assert identity == shared.out("images", "-q", "--no-trunc", "made")
    assert shared.out("run", "--rm", "--network", "none", "made:1") == "made"
    assert "a message" in shared.out("history", "made:1")
    assert shared.out("history", "-q", "--no-trunc", "made:1") == identity
    shared.proa("rmi", "made:1")
    piped = shared.out("import", "-", "made:2", stdin=busybox_tar.read_bytes())
    assert piped == shared.out("images", "-q", "--no-trunc", "made")
    shared.proa("rmi", "made:2")


def test_commit(shared: engines.PrivateEngine) -> None:
    shared.proa(
        "run", "--name", "changed", "--network", "none", "busybox", "sh", "-c", "echo new >/file; rm /etc/group"
    )
    identity = shared.out("commit", "-m", "changes", "-c", "ENV A=1", "-a", "me", "changed", "committed:1")
    assert identity == shared.out("inspect", "--format", "{{.Id}}", "committed:1")
    shared.proa("rm", "changed")
    script = "cat /file; echo $A; test -e /etc/group || echo gone"
    assert shared.out("run", "--rm", "--network", "none", "committed:1", "sh", "-c", script).split() == [
        "new",
        "1",
        "gone",
    ]
    shared.proa("rmi", "committed:1")


def test_inspect_of_any_kind(shared: engines.PrivateEngine) -> None:
    shared.proa("create", "--name", "seen", "-l", "a=1", "-e", "X=2", "--network", "none", "busybox", "true")
    found = json.loads(shared.out("inspect", "seen", "busybox"))
    assert [("State" in f, "RootFS" in f) for f in found] == [(True, False), (False, True)]
    assert shared.out("inspect", "-f", '{{.State.Status}} {{index .Config.Labels "a"}}', "seen") == "created 1"
    assert shared.out("inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", "seen").splitlines()[0]
    done = shared.proa("inspect", "seen", "no-such", check=False)
    assert done.returncode == 1
    assert "No such object: no-such" in done.stderr.decode()
    assert len(json.loads(done.stdout)) == 1
    assert shared.proa("inspect", "--type", "image", "seen", check=False).returncode == 1
    shared.proa("rm", "seen")


def test_a_broken_archive(shared: engines.PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(hashlib.sha256(b"x").digest() * 1000)
    done = shared.proa("load", "-i", str(tmp_path / "bad.tar"), check=False)
    assert done.returncode == 1
    assert done.stderr
    done = shared.proa("load", "-i", str(tmp_path / "none.tar"), check=False)
    assert "no such file" in done.stderr.decode()


def test_the_other_views(shared: engines.PrivateEngine) -> None:
    shared.proa("run", "-d", "--name", "viewed", "--network", "none", "busybox", "sleep", "60")
    assert "sleep 60" in shared.out("top", "viewed")
    stats = json.loads(shared.out("stats", "--no-stream", "--format", "json", "viewed"))
    assert stats["Name"] == "viewed"
    assert stats["PIDs"] == "1"
    assert shared.out("port", "viewed") == ""
    shared.proa("pause", "viewed")
    assert "(Paused)" in shared.out("ps", "--filter", "name=viewed")
    shared.proa("unpause", "viewed")
    shared.proa("rename", "viewed", "renamed")
    assert shared.out("ps", "--format", "table {{.Names}}\t{{.State}}").splitlines() == [
        "NAMES     STATE",
        "renamed   running",
    ]
    assert shared.out("kill", "-s", "KILL", "renamed") == "renamed"
    shared.proa("wait", "renamed")
    assert "Server" in shared.out("version")
    assert shared.out("version", "--format", "{{.Server.APIVersion}}") == "1.51"
    assert json.loads(shared.out("info", "--format", "json"))["ServerVersion"]
    assert shared.out("system", "df").splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    events = shared.out("events", "--since", "10m", "--until", "0s", "--filter", "container=renamed")
    assert "container kill" in events or "container die" in events
    assert "Deleted Containers:" in shared.out("container", "prune", "-f")
    assert shared.out("ps", "-aq") == ""
