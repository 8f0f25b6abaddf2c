"""Every way GNU tar stores sparse files reads back as the file, and stays sparse."""

import os
import subprocess

import pytest
from layer_applying import applied

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
