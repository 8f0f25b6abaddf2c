"""What `diff` and `tar_tree` make of directories, without mounting anything."""

import io
import os
import socket

import pytest
from layer_applying import applied
from layer_archives import contents, read_tree

from proa.errors import Conflict, Invalid
from proa.storage.layers import CompressedLayerWriter, diff, tar_tree, trees
from proa.storage.layers.overlay import make_whiteout
from proa.storage.layers.reader import TarReader


@pytest.fixture
def upper(tmp_path, monkeypatch):
    # Overlay's marks as a user may set them.
    monkeypatch.setattr(trees.overlay, "attribute_prefix", lambda: "user.overlay.")
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


@pytest.fixture
def lower(tmp_path):
    (tmp_path / "lower").mkdir()
    return tmp_path / "lower"


def write(root, path, content="", *, mtime=1000, mode=0o644):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    target.chmod(mode)
    os.utime(target, (mtime, mtime))


def whiteout(root, path):
    fd = os.open(root, os.O_RDONLY)
    make_whiteout(fd, path.encode())
    os.close(fd)


def opaque(path):
    os.setxattr(path, "user.overlay.opaque", b"y")


def names(upper, lowers=(), **options):
    sink = io.BytesIO()
    diff(upper, lowers, sink, **options)
    return [e.name.decode() for e in TarReader(iter([sink.getvalue()]))]


def same_time(*paths):
    for path in paths:
        os.utime(path, (5000, 5000))


def test_new_files_come_sorted_with_their_directories(upper):
    for path in ("z", "a/c", "a/b/x", "m"):
        write(upper, path)
    assert names(upper) == ["a/", "a/b/", "a/b/x", "a/c", "m", "z"]


def test_whiteouts_hide_only_what_is_there(upper, lower):
    write(lower, "gone")
    whiteout(upper, "gone")
    whiteout(upper, "never")
    assert names(upper, [lower]) == [".wh.gone"]
    assert names(upper) == []


def test_a_file_deleted_below_needs_no_second_whiteout(upper, lower, tmp_path):
    write(lower, "gone")
    (tmp_path / "middle").mkdir()
    whiteout(tmp_path / "middle", "gone")
    whiteout(upper, "gone")
    assert names(upper, [tmp_path / "middle", lower]) == []


def test_opaque_directories_say_so_first(upper, lower):
    write(lower, "d/old")
    write(upper, "d/.a")
    opaque(upper / "d")
    assert names(upper, [lower]) == ["d/", "d/.wh..wh..opq", "d/.a"]


def test_opaque_over_nothing_is_a_plain_directory(upper, lower):
    write(upper, "d/a")
    opaque(upper / "d")
    assert names(upper, [lower]) == ["d/", "d/a"]


def test_below_an_opaque_directory_everything_is_new(upper, lower):
    for root in (upper, lower):
        write(root, "d/e/f")
        same_time(root / "d/e", root / "d")
    opaque(upper / "d")
    assert names(upper, [lower]) == ["d/", "d/.wh..wh..opq", "d/e/", "d/e/f"]


def test_copies_without_a_change_are_left_out(upper, lower):
    for root in (upper, lower):
        write(root, "d/same", "x")
        os.symlink("t", root / "d/link")
        os.utime(root / "d/link", (7, 7), follow_symlinks=False)
        same_time(root / "d")
    assert names(upper, [lower]) == []
    write(upper, "d/new")
    assert names(upper, [lower]) == ["d/", "d/new"]


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.write_text("y") and os.utime(f, (1000, 1000)),
        lambda f: f.chmod(0o600),
        lambda f: os.utime(f, (1001, 1001)),
        lambda f: os.setxattr(f, "user.k", b"v"),
    ],
)
def test_any_change_of_a_file_counts(upper, lower, change):
    for root in (upper, lower):
        write(root, "f", "x")
    change(upper / "f")
    assert names(upper, [lower]) == ["f"]


def test_a_changed_directory_is_written_without_its_files(upper, lower):
    for root in (upper, lower):
        write(root, "d/f")
        same_time(root / "d")
    (upper / "d").chmod(0o700)
    assert names(upper, [lower]) == ["d/"]
    (upper / "d").chmod(0o755)
    os.utime(upper / "d", (1, 1))
    assert names(upper, [lower]) == ["d/"]


def test_excluded_files_leave_their_directory_unchanged(upper, lower):
    write(lower, "etc/passwd")
    same_time(lower / "etc")
    write(upper, "etc/hosts")
    write(upper, "etc/resolv.conf")
    write(upper, "run/secrets/key")
    exclude = {b"etc/hosts", b"etc/resolv.conf", b"run"}
    assert names(upper, [lower], exclude=exclude) == []
    write(upper, "etc/new")
    assert names(upper, [lower], exclude=exclude) == ["etc/", "etc/new"]
    assert names(upper, [lower])[0] == "etc/"


def test_hard_links_are_kept(upper):
    write(upper, "b", "x")
    (upper / "a").mkdir()
    os.link(upper / "b", upper / "a/c")
    os.link(upper / "b", upper / "z")
    sink = io.BytesIO()
    diff(upper, [], sink)
    kinds = [(e.name, e.kind, e.linkname) for e in TarReader(iter([sink.getvalue()]))]
    assert kinds == [(b"a/", "5", b""), (b"a/c", "0", b""), (b"b", "1", b"a/c"), (b"z", "1", b"a/c")]


def test_sockets_are_passed_over(upper):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"/proc/self/fd/{(fd := os.open(upper, os.O_PATH))}/s")
        os.close(fd)
    write(upper, "f")
    assert names(upper) == ["f"]


def test_names_that_mean_deletion_are_refused(upper):
    write(upper, "d/.wh.x")
    with pytest.raises(Invalid, match=r"d/\.wh\.x"):
        names(upper)


def test_source_date_epoch_clamps_times(upper):
    write(upper, "old", mtime=100)
    write(upper, "new", mtime=10**9)
    sink = io.BytesIO()
    diff(upper, [], sink, source_date_epoch=5000)
    assert {e.name: e.mtime_ns // 10**9 for e in TarReader(iter([sink.getvalue()]))} == {b"old": 100, b"new": 5000}


def test_overlays_pointers_are_refused(upper):
    write(upper, "f")
    os.setxattr(upper / "f", "user.overlay.metacopy", b"")
    with pytest.raises(Exception, match="metacopy"):
        names(upper)


def test_a_file_that_shrinks_is_a_conflict(upper, monkeypatch):
    write(upper, "f", "x" * 10)
    monkeypatch.setattr(trees.os, "pread", lambda fd, size, at: b"")
    with pytest.raises(Conflict, match="changed while it was read"):
        diff(upper, [], io.BytesIO())


def test_directories_deeper_than_a_path_can_be(upper):
    fd = os.open(upper, os.O_RDONLY)
    for _ in range(700):
        os.mkdir(b"d" * 9, dir_fd=fd)
        child = os.open(b"d" * 9, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    open_before = len(os.listdir("/proc/self/fd"))
    listed = names(upper)
    assert len(listed) == 701
    assert len(listed[-1]) == 7001
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_compressing_sink_takes_the_digest(upper):
    write(upper, "f", "x")
    plain, packed = io.BytesIO(), io.BytesIO()
    result = diff(upper, [], plain)
    writer = CompressedLayerWriter(packed, "zstd")
    assert diff(upper, [], writer) == result
    assert writer.finish().diff_id == result.diff_id
    assert result.size_bytes == len(plain.getvalue())


def test_tar_tree_shows_the_stack_as_one(upper, lower, tmp_path):
    write(lower, "keep", "low")
    write(lower, "gone")
    write(lower, "d/old")
    write(lower, "o/hidden")
    write(lower, "was-file")
    write(upper, "d/new")
    write(upper, "was-file/inside")
    write(upper, "o/shown")
    opaque(upper / "o")
    whiteout(upper, "gone")
    sink = io.BytesIO()
    result = tar_tree([upper, lower], sink, exclude={b"keep"})
    applied(sink.getvalue(), tmp_path / "t")
    assert contents(read_tree(tmp_path / "t", overlay=False)) == {
        b"d": b"d",
        b"d/new": b"-",
        b"d/old": b"-",
        b"o": b"d",
        b"o/shown": b"-",
        b"was-file": b"d",
        b"was-file/inside": b"-",
    }
    assert result.entries == 7
