"""Every way GNU tar stores sparse files reads back as the file, and stays sparse."""

import io
import itertools
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_applying import applied

from proa.errors import Conflict
from proa.storage.layers import tar_tree
from proa.storage.layers.steady import content
from proa.storage.layers.zeros import HOLE, ZEROS, data_runs

FORMATS = {
    "old": ["--format=gnu"],
    "pax 0.0": ["--format=posix", "--sparse-version=0.0"],
    "pax 0.1": ["--format=posix", "--sparse-version=0.1"],
    "pax 1.0": ["--format=posix", "--sparse-version=1.0"],
}
MIB = 1 << 20


def _write(path, size, pieces):
    with open(path, "wb") as f:
        for offset, data in pieces:
            f.seek(offset)
            f.write(data)
        f.truncate(size)


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_sparse_files_come_back(tmp_path, options):
    source = tmp_path / "s"
    source.mkdir()
    _write(source / "many", 64 * MIB, [(i * MIB, b"%04d" % i * 1024) for i in range(40)])
    _write(source / "hole", 8 * MIB, [])
    _write(source / ("start" + "x" * 120), 3 * MIB + 5, [(0, b"a" * 5000)])
    _write(source / "end", 3 * MIB, [(3 * MIB - 100, b"z" * 100)])
    _write(source / "plain", 1000, [(0, b"p" * 1000)])
    command = ["/usr/bin/tar", "--sparse", "--hole-detection=seek", *options, "-C", source, "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < 4 * MIB
    target = tmp_path / "t"
    applied(data, target)
    for file in source.iterdir():
        copy = target / file.name
        assert copy.read_bytes() == file.read_bytes()
        assert os.stat(copy).st_blocks <= os.stat(file).st_blocks + 16


RUNS = st.lists(st.tuples(st.integers(0, 3 * HOLE), st.integers(1, 2 * HOLE)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(RUNS, st.integers(0, 3 * MIB))
def test_holes_read_as_zeros(tmp_path_factory, runs, tail):
    """Whatever lies where, what is read is the file, and holes worth it were not."""
    path = tmp_path_factory.mktemp("holes") / "file"
    with open(path, "wb") as f:
        for hole, length in runs:
            f.seek(hole, os.SEEK_CUR)
            f.write(b"x" * length)
        size = f.tell() + tail
        f.truncate(size)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert b"".join(content(fd, size, b"f")) == path.read_bytes()
        found = list(data_runs(fd, size))
        assert all(start < end <= size for start, end in found) or not size
        assert all(end + HOLE <= start for (_, end), (start, _) in itertools.pairwise(found))
    finally:
        os.close(fd)


def test_a_giant_is_packed_without_reading_its_hole(tmp_path):
    """Each MiB of it is the same object; the archive is a plain one that everybody reads."""
    (tmp_path / "t").mkdir()
    _write(tmp_path / "t" / "giant", 1 << 40, [(0, b"head"), (1 << 39, b"middle")])
    fd = os.open(tmp_path / "t" / "giant", os.O_RDONLY)
    try:
        pieces = content(fd, 1 << 40, b"giant")
        assert next(pieces).startswith(b"head")
        assert all(next(pieces) is ZEROS for _ in range(1000))
    finally:
        os.close(fd)


def test_a_file_that_shrinks_within_its_hole(tmp_path):
    _write(tmp_path / "f", 64 * MIB, [(0, b"x")])
    fd = os.open(tmp_path / "f", os.O_RDWR)
    try:
        pieces = content(fd, 64 * MIB, b"f")
        next(pieces)
        os.ftruncate(fd, 1)
        with pytest.raises(Conflict, match="changed while it was read"):
            list(pieces)
    finally:
        os.close(fd)


def test_holes_of_any_place_come_back(tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    _write(source / "many", 24 * MIB, [(i * 3 * MIB + 1, b"%04d" % i * 1024) for i in range(8)])
    _write(source / "hole", 8 * MIB, [])
    sink = io.BytesIO()
    tar_tree(source, sink)
    target = tmp_path / "t"
    applied(sink.getvalue(), target)
    for file in source.iterdir():
        copy = target / file.name
        assert copy.read_bytes() == file.read_bytes()
