"""image diff, image mount, images --tree: what is in an image, without a container."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PROA, PrivateEngine

import proa

pytestmark = pytest.mark.root

SCRIPT = """
echo more >>/etc/passwd; rm /etc/group; mkdir -p /new/deep; echo x >/new/deep/file; rm /bin/vi; ln -s sh /bin/vi
rm -r /home; chmod 700 /root; touch -d @1 /etc/os-release
"""


@pytest.fixture
def changed(box: PrivateEngine) -> str:
    box.proa("run", "--name", "changer", "--network", "none", "busybox", "sh", "-c", SCRIPT)
    box.proa("commit", "changer", "changed:1")
    return "changed:1"


def test_diff(box: PrivateEngine, changed: str) -> None:
    expected = [
        *("C /bin/vi", "C /etc/passwd", "D /etc/group", "C /etc/os-release", "A /new", "A /new/deep"),
        *("A /new/deep/file", "D /home", "C /root"),
    ]
    found = box.out("image", "diff", changed).splitlines()
    assert sorted(found) == sorted(expected)
    assert box.out("image", "diff", changed, "busybox").splitlines() == found
    back = box.out("image", "diff", "busybox", changed).splitlines()
    swap = {"A": "D", "D": "A", "C": "C"}
    shown = [f"{swap[line[0]]} {line[2:]}" for line in found if not line.startswith("A /new/")]
    # What is gone is told by its top, what is new whole.
    assert sorted(back) == sorted([*shown, "A /home/user"])
    assert box.out("image", "diff", changed, changed) == ""
    # An image of other layers with the same files differs in nothing.
    archive = box.proa("save", "--format", "rootfs", changed).stdout
    box.proa("import", "-", "flat:1", stdin=archive)
    assert box.out("image", "diff", "flat:1", changed) == ""
    assert len(box.out("image", "diff", "flat:1").splitlines()) > 250  # its one layer adds everything
    assert json.loads(box.out("image", "diff", "--format", "json", changed).splitlines()[0])["Path"]
    assert box.proa("image", "diff", changed, "nowhere", check=False).returncode == 1
    with proa.connect(box.socket) as client:
        changes = client.images.changes(changed)
        assert [(c.path, c.kind) for c in changes if c.path == "/home"] == [("/home", "deleted")]


@pytest.fixture
def target(box: PrivateEngine, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mounted").mkdir()
    yield tmp_path / "mounted"
    box.proa("image", "unmount", "--all", check=False)


def test_mount(box: PrivateEngine, changed: str, target: Path) -> None:
    assert box.out("image", "mount", changed, str(target)) == str(target)
    assert (target / "new/deep/file").read_text() == "x\n"
    assert not (target / "home").exists()
    (line,) = [row for row in Path("/proc/self/mountinfo").read_text().splitlines() if str(target) in row]
    assert re.search(r" ro,nosuid,nodev", line)
    with pytest.raises(OSError, match="Read-only"):
        (target / "written").touch()
    # The layers stay as long as they are looked at, also through a collection and the engine's death.
    box.proa("rm", "changer")
    box.proa("rmi", changed)
    box.proa("image", "prune", "-f")
    box.kill_engine()
    assert box.out("image", "mount", "--format", "{{.Target}}") == str(target)
    box.proa("image", "prune", "-f")
    assert (target / "etc/passwd").read_text().endswith("more\n")
    taken = box.proa("image", "mount", "busybox", str(target), check=False)
    assert b"is mounted at" in taken.stderr
    assert box.out("image", "unmount", str(target)) == str(target)
    assert str(target) not in Path("/proc/self/mountinfo").read_text()
    assert box.out("image", "mount").splitlines() == ["IMAGE ID   IMAGE     TARGET"]
    assert box.proa("image", "unmount", str(target), check=False).returncode == 1


def test_mount_at_a_place_of_its_own(box: PrivateEngine, target: Path) -> None:
    place = box.out("image", "mount", "busybox")
    assert place.startswith(str(box.run_dir))
    assert (Path(place) / "bin/busybox").exists()
    assert box.out("image", "umount", "busybox") == place
    assert place not in Path("/proc/self/mountinfo").read_text()


def test_who_may_not_mount_leaves_nothing(box: PrivateEngine, target: Path) -> None:
    command = ["setpriv", "--bounding-set", "-sys_admin", PROA, "image", "mount", "busybox", str(target)]
    done = subprocess.run(command, env=box.env, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"mounting takes root" in done.stderr
    assert box.out("image", "mount", "--format", "{{.Target}}") == ""


def test_tree(box: PrivateEngine, busybox_tar: Path) -> None:
    box.proa("import", "--platform", "linux/arm64", str(busybox_tar), "tree/arm:1")
    box.proa("manifest", "create", "tree/all:1", "busybox", "tree/arm:1")
    box.proa("create", "--network", "none", "busybox", "true")
    lines = box.out("images", "--tree").splitlines()
    assert lines[0].split() == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    at = next(i for i, line in enumerate(lines) if line.startswith("tree/all:1"))
    assert [line.split()[1] for line in lines[at + 1 : at + 3]] == ["linux/amd64", "linux/arm64/v8"]
    assert lines[at].endswith("U")
    # The docker command draws its own tree of what the API says.
    docker = box.docker("images", "--tree").stdout.decode()
    assert "linux/arm64" in docker
    assert "tree/all:1" in docker
    assert box.proa("images", "--tree", "-q", check=False).returncode == 1
    box.proa("manifest", "rm", "tree/all:1")
