import json
import os

import pytest

from proa.errors import Corrupt, Unsupported
from proa.storage import Mount, Storage, lower_dirs, upper_dir
from proa.storage import overlay_options as options
from proa.storage.overlay_options import overlay_mount


@pytest.fixture
def root(tmp_path):
    with Storage.open(tmp_path / "root") as s:
        s.snapshots.prepare("a")
        s.snapshots.commit("base", "a")
        s.snapshots.prepare("b", "base")
        s.snapshots.commit("top", "b")
        s.snapshots.prepare("container:1", "top")
    return tmp_path / "root"


def keys(storage):
    return sorted(s.key for s in storage.snapshots.walk())


def test_directory_without_record_is_deleted(root):
    (root / "snapshots" / "zz" / "fs").mkdir(parents=True)
    with Storage.open(root) as s:
        assert s.trash.drain(20)
        assert sorted(os.listdir(root / "snapshots")) == ["1", "2", "3", "records"]
        s.snapshots.prepare("next")
        assert upper_dir(s.snapshots.mounts("next")).endswith("/100/fs"), "ids are not used again in a hurry"


def test_commit_that_kept_its_active_record(root):
    """The crash came between the commit record and the removal of the active one."""
    os.symlink("2,1,active,", root / "snapshots" / "records" / "active" / "b")
    with Storage.open(root) as s:
        assert keys(s) == ["base", "container:1", "top"]
    assert os.listdir(root / "snapshots" / "records" / "active") == ["container%3A1"]


def test_committed_record_without_directory_is_dropped(root):
    with Storage.open(root) as s:
        s.snapshots.remove("container:1")
        assert s.trash.drain(20)
    for name in os.listdir(root / "snapshots" / "2"):
        os.rmdir(root / "snapshots" / "2" / name)
    os.rmdir(root / "snapshots" / "2")
    with Storage.open(root) as s:
        assert keys(s) == ["base"]
    with Storage.open(root) as s:
        assert keys(s) == ["base"]


def test_damaged_commit_record_keeps_what_stands_on_it(root):
    record = root / "snapshots" / "records" / "committed" / "top.json"
    record.write_bytes(b"")
    with Storage.open(root) as s:
        assert len(s.damaged) == 2
        assert keys(s) == ["base", "container:1"]
        assert (root / "snapshots" / "2" / "fs").is_dir()
        assert (root / "snapshots" / "3" / "fs").is_dir()
        with pytest.raises(Corrupt, match="record is lost"):
            s.snapshots.mounts("container:1")
        s.snapshots.remove("container:1")


def test_commit_record_says_all(root):
    record = json.loads((root / "snapshots" / "records" / "committed" / "top.json").read_bytes())
    assert record["name"] == "top"
    assert (record["id"], record["parent"], record["parent_id"]) == ("2", "base", "1")
    assert os.readlink(root / "snapshots" / "records" / "active" / "container%3A1") == "3,2,active,"


def test_writable_and_lower_directories():
    mounts = [overlay_mount(["/l2", "/l1"], "/u", "/w")]
    assert upper_dir(mounts) == "/u"
    assert lower_dirs(mounts) == ["/l2", "/l1"]
    bind = [Mount("bind", "/fs", ("bind", "rw"))]
    assert upper_dir(bind) == "/fs"
    assert lower_dirs(bind) == []
    assert lower_dirs([Mount("bind", "/fs", ("bind", "ro"))]) == ["/fs"]


def test_long_lists_go_one_by_one():
    lowers = [f"/var/lib/proa/snapshots/{n}/fs" for n in range(200)]
    (short,) = (overlay_mount(lowers[:100], "/u", "/w"),)
    assert short.options[0].startswith("lowerdir=/var")
    assert len(",".join(short.options)) <= options.PAGE_LIMIT
    long = overlay_mount(lowers, "/u", "/w", volatile=True)
    assert long.options[:2] == (f"lowerdir+={lowers[0]}", f"lowerdir+={lowers[1]}")
    assert lower_dirs([long]) == lowers
    assert "volatile" in long.options
    assert "redirect_dir=nofollow" in long.options


def test_impossible_mounts_are_refused():
    with pytest.raises(Unsupported, match="501 layers"):
        overlay_mount([f"/{n}" for n in range(501)], "/u", "/w")
    with pytest.raises(Unsupported, match="too long"):
        overlay_mount(["/" + "x" * 300] * 20, "/u", "/w")
