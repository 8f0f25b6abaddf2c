"""Every hostile layer is contained or refused even where nothing confines the process that applies it."""

import os

import pytest
from hostile_layers import cases
from layer_applying import applied
from layer_archives import contents, read_tree

from proa.errors import ProaError
from proa.storage.layers.names import display

HERE = b"/nonexistent-outside"


@pytest.mark.parametrize("index", range(len(cases(HERE))), ids=[c.name for c in cases(HERE)])
def test_hostile_layer_stays_inside(tmp_path, index):
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_bytes(b"precious")
    (canary / "dir").mkdir()
    case = cases(os.fsencode(canary))[index]
    before = (read_tree(canary), os.lstat(canary).st_mtime_ns)
    target = tmp_path / "layer"
    if case.code is None:
        applied(case.data, target)
        tree = contents(read_tree(target, overlay=False))
        for path, content in (case.shows or {}).items():
            assert tree.get(path) == content, (path, tree)
        if case.shows == {}:
            assert tree == {}
    else:
        with pytest.raises(ProaError) as caught:
            applied(case.data, target)
        assert caught.value.code == case.code, caught.value
        assert caught.value.message.isprintable()
    assert (read_tree(canary), os.lstat(canary).st_mtime_ns) == before
    assert sorted(os.listdir(tmp_path)) == ["canary", "layer"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a b", "a b"),
        (b"\x1b[2J", "\\u001b[2J"),
        ("\u202eexe".encode(), "\\u202eexe"),
        ("\u200b\ufeff\ufffe\u00a0".encode(), "\\u200b\\ufeff\\ufffe\\u00a0"),
        ("\u00e9\u6c34".encode(), "\u00e9\u6c34"),
        (b"\xff", "\\xff"),
        (b"n" * 300, "n" * 240 + "\u2026"),
    ],
)
def test_names_are_shown_in_one_harmless_line(name, shown):
    assert display(name) == shown
