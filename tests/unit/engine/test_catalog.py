"""Names and IDs of containers: found, reserved, never shadowed; records that survive."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import container

from proa.engine.catalog import RECORD, Catalog
from proa.errors import Conflict, Invalid, NotFound

A, B = "abc" + "0" * 61, "abd" + "1" * 61


def test_finding(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    first, second = catalog.add(container(id=A, name="one")), catalog.add(container(id=B, name="abc"))
    assert catalog.find(A) is first
    assert catalog.find("/one") is first
    assert catalog.find("abc0") is first
    assert catalog.find("abc") is second  # a name before a prefix
    with pytest.raises(Invalid, match="multiple IDs"):
        catalog.find("ab")
    for missing in ("", "/", "nosuch", "ABC0"):
        with pytest.raises(NotFound, match="No such container"):
            catalog.find(missing)


def test_names_are_taken_once(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    entry = catalog.add(container(id=A, name="one"))
    with pytest.raises(Conflict, match=f'The container name "/one" is already in use by container "{A}"'):
        catalog.add(container(id=B, name="one"))
    with pytest.raises(Conflict, match="is the ID of another container"):
        catalog.add(container(id=B, name=A[:12]))
    other = catalog.add(container(id=B, name="two"))
    with pytest.raises(Conflict):
        catalog.rename(other, "one")
    catalog.rename(entry, "three")
    assert catalog.find("three") is entry
    assert not catalog.name_taken("one")
    catalog.rename(other, "one")
    catalog.drop(other)
    assert not catalog.name_taken("one")
    assert other.removed
    assert list(catalog) == [entry]


def test_records_survive(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    entry = catalog.add(container(id=A, name="one", labels={"a": "b"}))
    catalog.path(entry).mkdir()
    catalog.save(entry)
    for name, data in (("half", None), ("broken", b"{"), (B, (tmp_path / A / RECORD).read_bytes())):
        (tmp_path / name).mkdir()
        if data is not None:
            (tmp_path / name / RECORD).write_bytes(data)
    again = Catalog(tmp_path)
    assert sorted(again.load()) == sorted(["half", "broken", B])
    assert again.find("one").record == entry.record
