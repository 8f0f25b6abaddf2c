import os
import threading

import pytest

from proa.storage import disk_usage as du
from proa.storage.deletion import delete_tree, remove_tree
from proa.storage.trash import Trash


def delete(path):
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        return delete_tree(fd, path.name)
    finally:
        os.close(fd)


def test_links_are_removed_and_not_followed(tmp_path):
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "link").symlink_to(keep)
    (tree / "sub" / "abs").symlink_to("/etc/passwd")
    (tree / "sub" / "up").symlink_to("../..")
    os.mkfifo(tree / "fifo")
    (tree / "sub" / "bad\udcff\nname").write_text("")
    assert delete(tree) == 7
    assert (keep / "file").read_text() == "x"
    assert os.listdir(tmp_path) == ["keep"]


def test_top_may_be_a_link_or_file_or_missing(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    assert delete(tmp_path / "link") == 1
    assert (tmp_path / "d").is_dir()
    (tmp_path / "f").write_text("")
    remove_tree(tmp_path / "f")
    remove_tree(tmp_path / "f")
    remove_tree(tmp_path / "no" / "such")
    assert os.listdir(tmp_path) == ["d"]


def test_very_deep_tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert delete(tree) == 1501
    assert os.listdir(tmp_path) == []


def test_wide_tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(3000):
        (tree / str(n)).touch()
    assert delete(tree) == 3001


def test_unreadable_directories(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "c").touch()
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0)
    remove_tree(tree)
    assert not tree.exists()


def test_trash_deletes_in_the_background(tmp_path):
    (tmp_path / "trash").mkdir()
    trash = Trash(tmp_path / "trash")
    for n in range(5):
        (tmp_path / f"t{n}" / "sub").mkdir(parents=True)
        trash.discard(tmp_path / f"t{n}")
        assert not (tmp_path / f"t{n}").exists()
    trash.discard(tmp_path / "nothing")
    assert trash.drain(20)
    assert os.listdir(tmp_path / "trash") == []
    trash.close()
    (tmp_path / "late").mkdir()
    trash.discard(tmp_path / "late")
    assert trash.drain(20)
    trash.close()
    trash.close()


def test_trash_of_a_dead_process_is_deleted(tmp_path):
    (tmp_path / "trash" / "7" / "sub").mkdir(parents=True)
    (tmp_path / "trash" / "7.1").mkdir()
    trash = Trash(tmp_path / "trash")
    (tmp_path / "x").mkdir()
    trash.discard(tmp_path / "x")
    assert trash.drain(20)
    trash.close()
    assert os.listdir(tmp_path / "trash") == []
    assert not [t for t in threading.enumerate() if t.name == "trash"]


def test_disk_usage_is_what_du_says(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"x" * 10_000)
    os.link(tmp_path / "a" / "file", tmp_path / "a" / "b" / "link")
    (tmp_path / "a" / "gone").symlink_to("/nothing")
    with open(tmp_path / "a" / "sparse", "wb") as f:
        f.truncate(1 << 30)
    import subprocess

    blocks = int(subprocess.run(["du", "-s", "-B512", tmp_path], capture_output=True, check=True).stdout.split()[0])
    usage = du.disk_usage(tmp_path)
    assert usage.size_bytes == blocks * 512
    assert usage.inodes == 6


def test_disk_usage_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        du.disk_usage(tmp_path / "nothing")
