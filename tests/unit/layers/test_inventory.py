"""The inventory of a layer: what it lists, and that it finds every kind of change."""

import os
import zlib

import pytest
from layer_applying import applied
from layer_archives import archive, directory, hard_link, member, symlink

from proa.errors import Corrupt, NotFound
from proa.storage.layers.inventory import compare, read_inventory, write_inventory

DATA = archive(
    directory(b"d"),
    member(b"d/f", data=b"12345" * 1000),
    hard_link(b"g", b"d/f"),
    symlink(b"s", b"target"),
    member(b"twice", data=b"first"),
    member(b"twice", data=b"second"),
    member(b"odd\n\xff name", data=b"x"),
    directory(b"gone"),
    member(b"gone/inner", data=b"y"),
    member(b"gone", data=b"now a file"),
)


def listed(tmp_path, sums):
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    with open(tmp_path / "inventory", "wb") as out:
        write_inventory(out.fileno(), fd, sums)
    os.close(fd)
    return read_inventory(tmp_path / "inventory")


@pytest.fixture
def tree(tmp_path):
    result = applied(DATA, tmp_path / "tree")
    before = listed(tmp_path, result.sums)
    assert not list(compare(tmp_path / "tree", before))
    return tmp_path / "tree", before


def test_sums_taken_while_writing_are_those_of_the_files(tmp_path):
    result = applied(DATA, tmp_path / "tree")
    assert listed(tmp_path, result.sums) == listed(tmp_path, {})
    found = read_inventory(tmp_path / "inventory")
    assert set(found) == {b"", b"d", b"d/f", b"g", b"s", b"twice", b"odd\n\xff name", b"gone"}
    assert found[b"twice"].sum == zlib.crc32(b"second")
    assert found[b"twice"].size == 6


def test_a_flipped_bit(tree):
    path, before = tree
    found = os.stat(path / "d" / "f")
    with open(path / "d" / "f", "r+b") as f:
        f.seek(4321)
        byte = f.read(1)[0]
        f.seek(4321)
        f.write(bytes([byte ^ 0x10]))
    os.utime(path / "d" / "f", ns=(found.st_mtime_ns, found.st_mtime_ns))
    assert sorted(compare(path, before)) == [("d/f", "content"), ("g", "content")]


def test_other_changes(tree):
    path, before = tree
    os.unlink(path / "g")
    (path / "new").write_text("")
    os.chmod(path / "twice", 0o600)
    os.unlink(path / "s")
    os.symlink("elsewhere", path / "s")
    root = os.stat(path)
    assert set(compare(path, before)) - {("", "attributes")} == {
        ("g", "missing"),
        ("new", "unexpected"),
        ("twice", "attributes"),
        ("s", "content"),
    }
    assert root.st_mode == os.stat(path).st_mode


@pytest.mark.parametrize("cut", [0, 1, 20, -1, -9])
def test_a_damaged_inventory_is_no_inventory(tree, cut):
    inventory = tree[0].with_name("inventory")
    raw = inventory.read_bytes()
    inventory.write_bytes(raw[:cut])
    with pytest.raises(Corrupt):
        read_inventory(inventory)
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 4
    inventory.write_bytes(flipped)
    with pytest.raises(Corrupt):
        read_inventory(inventory)
    inventory.unlink()
    with pytest.raises(NotFound):
        read_inventory(inventory)
