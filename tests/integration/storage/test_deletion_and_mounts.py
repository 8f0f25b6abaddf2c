"""Deleting never empties what is mounted inside, and gets rid of what a privileged container leaves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proa.storage import Storage, upper_dir
from proa.storage.deletion import remove_tree

pytestmark = pytest.mark.root

# Mounts are made in a namespace of its own: a test that fails leaves none.
PRELUDE = """
import os, sys
from pathlib import Path
from proa.errors import Conflict
from proa.linux import mount as kernel, process
from proa.storage.deletion import remove_tree
process.unshare(process.CLONE_NEWNS)
kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
top = Path(sys.argv[1])
"""


def in_namespace(tmp_path, program):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["directory", "file", "tmpfs", "top"])
def test_mount_inside_is_left_and_reported(tmp_path, kind):
    source = tmp_path / "source"
    source.mkdir()
    (source / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "sub" / "point").mkdir(parents=True)
    (tree / "sub" / "filepoint").touch()
    (tree / "other").touch()
    mount = {
        "directory": 'kernel.mount(top/"source", top/"tree/sub/point", None, kernel.MS_BIND)',
        "file": 'kernel.mount(top/"source/precious", top/"tree/sub/filepoint", None, kernel.MS_BIND)',
        "tmpfs": 'kernel.mount("tmpfs", top/"tree/sub/point", "tmpfs", 0); open(top/"tree/sub/point/f", "w").close()',
        "top": 'kernel.mount(top/"source", top/"tree", None, kernel.MS_BIND)',
    }[kind]
    program = f"""
{mount}
try:
    remove_tree(top/"tree")
except Conflict as e:
    print("blocked", e)
if {kind == "tmpfs"}:
    assert os.path.exists(top/"tree/sub/point/f")
"""
    assert in_namespace(tmp_path, program).startswith("blocked")
    assert (source / "precious").read_text() == "x"
    assert (tree / "other").exists() == (kind == "top"), "the rest is deleted"
    remove_tree(tree)
    assert not tree.exists()


def test_immutable_files_are_deleted(tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").touch()
    (tree / "append").touch()
    for flag, path in (("+i", "sub/file"), ("+a", "append"), ("+i", "sub")):
        done = subprocess.run(["/usr/bin/chattr", flag, tree / path], capture_output=True)
        assert done.returncode == 0, done.stderr
    remove_tree(tree)
    assert not tree.exists()


def test_removed_container_with_a_mount_does_not_block_the_store(tmp_path):
    program = """
from proa.storage import Storage, upper_dir
s = Storage.open(top / "root")
m = s.snapshots.prepare("container:1")
os.mkdir(upper_dir(m) + "/point")
kernel.mount(top / "source", upper_dir(m) + "/point", None, kernel.MS_BIND)
s.snapshots.remove("container:1")
s.snapshots.prepare("container:1")
assert s.trash.drain(20)
print(len(s.trash.blocked))
kernel.umount2(top / "root/trash/1/fs/point")
s.collect()
assert s.trash.drain(20)
print(len(s.trash.blocked), os.listdir(top / "root/trash"))
s.close()
"""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "precious").write_text("x")
    assert in_namespace(tmp_path, program) == "1\n0 []\n"
    assert (tmp_path / "source" / "precious").read_text() == "x"


def test_device_nodes_and_overlay_marks(tmp_path):
    with Storage.open(tmp_path / "root") as s:
        upper = upper_dir(s.snapshots.prepare("container:1"))
        os.mknod(f"{upper}/whiteout", 0o020000, 0)
        os.mknod(f"{upper}/null", 0o020666, os.makedev(1, 3))
        os.mkdir(f"{upper}/opaque")
        os.setxattr(f"{upper}/opaque", "trusted.overlay.opaque", b"y")
        assert s.snapshots.usage("container:1").inodes == 4
        s.snapshots.remove("container:1")
        assert s.trash.drain(20)
        assert not s.trash.blocked
    assert os.listdir(tmp_path / "root" / "trash") == []
