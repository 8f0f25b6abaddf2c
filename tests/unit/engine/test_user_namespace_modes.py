"""`--userns` and its maps: what is given out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import container

from proa.engine.catalog import Catalog
from proa.engine.types import IdMaps
from proa.engine.userns import Own, UserNamespaces, check_range, last_group, parse_maps, read_subordinate
from proa.errors import Exhausted, Invalid


def given(tmp_path: Path, **how: Any) -> tuple[Catalog, UserNamespaces]:
    catalog = Catalog(tmp_path)
    settings: dict[str, Any] = {"remap": "", "space": (1_000_000, 3 * 65536), **how}
    return catalog, UserNamespaces(catalog, "00000001deadbeef", **settings)


def assigned(catalog: Catalog, users: UserNamespaces, number: int, mode: str) -> IdMaps | None:
    record = container(id=f"{number:064x}", name=f"c{number}")
    record.host.userns_mode = mode
    catalog.add(record)
    users.assign(record)
    return record.id_maps


def test_ranges_are_disjoint_and_given_out_again(tmp_path: Path) -> None:
    catalog, users = given(tmp_path)
    maps = [assigned(catalog, users, number, "auto") for number in range(3)]
    starts = {one.uids[0][1] for one in maps if one is not None}
    assert starts == {1_000_000, 1_065_536, 1_131_072}
    with pytest.raises(Exhausted):
        assigned(catalog, users, 3, "auto")
    catalog.drop(catalog.find("c3"))
    catalog.drop(catalog.find("c1"))
    again = assigned(catalog, users, 4, "auto:size=65536")
    assert again is not None
    assert again.uids == again.gids == [(0, maps[1].uids[0][1], 65536)]  # type: ignore[union-attr]


def test_smaller_ranges_fill_the_gaps(tmp_path: Path) -> None:
    catalog, users = given(tmp_path, space=(1000, 100))
    for number in range(10):
        assert assigned(catalog, users, number, "auto:size=10") is not None
    with pytest.raises(Exhausted):
        assigned(catalog, users, 10, "auto:size=1")


def test_the_default_and_its_exception(tmp_path: Path) -> None:
    catalog, users = given(tmp_path, remap="auto")
    assert assigned(catalog, users, 0, "") is not None
    assert assigned(catalog, users, 1, "host") is None
    catalog, users = given(tmp_path / "other")
    assert assigned(catalog, users, 2, "") is None


def test_keep_id(tmp_path: Path) -> None:
    catalog, users = given(tmp_path, own=Own(1000, 100, 65537))
    kept = assigned(catalog, users, 0, "keep-id")
    assert kept is not None
    assert kept.uids == [(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64536)]
    assert kept.gids == [(0, 1, 100), (100, 0, 1), (101, 101, 65436)]
    assert catalog.find("c0").record.config.user == "1000:100"
    other = assigned(catalog, users, 1, "keep-id:uid=0,gid=0")
    assert other is not None
    assert other.uids == [(0, 0, 1), (1, 1, 65536)]
    small = assigned(catalog, users, 2, "auto")
    assert small is not None
    assert small.uids[0][2] == 4096
    for mode in ("keep-id:uid=70000", "keep-id:user=1", "keep-id:uid=-1", "keep-id:uid=x"):
        with pytest.raises(Invalid):
            assigned(catalog, users, hash(mode) & 0xFFFF, mode)


@pytest.mark.parametrize(
    "text",
    ["", "uid=0:1", "uid=a:1:1", "uid=0:1:0", "xid=0:1:1", "uid=5:1000:5", "uid=0:1:4294967295", "uid=0:1:5,uid=3:9:5"],
)
def test_maps_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        parse_maps(text)


def test_groups_are_as_users_unless_given() -> None:
    assert parse_maps("uid=0:1000:5").gids == [(0, 1000, 5)]
    assert parse_maps("uid=0:1000:5,gid=0:2000:6").gids == [(0, 2000, 6)]


def test_the_last_group_without_a_gap() -> None:
    assert last_group(IdMaps(uids=[], gids=[(0, 5, 10), (10, 100, 5), (20, 200, 5)])) == 14
    assert last_group(IdMaps(uids=[], gids=[(0, 0, (1 << 32) - 1)])) == (1 << 31) - 1


def test_files_of_subordinate_ids(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    assert read_subordinate(str(file), "me", 1000) == []
    file.write_text("# nothing\nyou:1:2\nme:100000:65536\n1000:300000:10\nme:5:0\nme\n")
    assert read_subordinate(str(file), "me", 1000) == [(100000, 65536), (300000, 10)]
    file.write_text("me:-1:5\n")
    with pytest.raises(Invalid):
        read_subordinate(str(file), "me")


def test_the_configured_range() -> None:
    assert check_range("1000:5") == (1000, 5)
    for text in ("x", "0:5", "5:0", "1:4294967295", "5"):
        with pytest.raises(ValueError, match="userns-range"):
            check_range(text)
