"""Users from a container's own files, without its C library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.runtime.users import ResolvedUser, resolve_user

PASSWD = """# comment
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/sbin/nologin
user:x:1000:1001:User,,,:/home/user:/bin/sh
1337:x:0:0:tricky:/evil:
short:x:5
+nis::::::
wrap:x:4294967296:0::/:
negative:x:-1:0::/:
unicode:x:\u0661:0::/:
nohome:x:7:8
"""
GROUP = "root:x:0:\nwheel:x:10:root,user\nusers:x:100:daemon\nstaff:x:50:user\n77:x:0:\nbroken\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("user", "group_add", "wanted"),
    [
        ("", (), ResolvedUser(0, 0, (10,), "/root")),
        ("0", (), ResolvedUser(0, 0, (10,), "/root")),
        ("user", (), ResolvedUser(1000, 1001, (10, 50), "/home/user")),
        ("user:staff", (), ResolvedUser(1000, 50, (), "/home/user")),
        ("user:77", (), ResolvedUser(1000, 77, (), "/home/user")),
        ("1000:", ("users", "9"), ResolvedUser(1000, 1001, (10, 50, 100, 9), "/home/user")),
        ("1337", (), ResolvedUser(1337, 0, (), "/")),
        (":5", (), ResolvedUser(0, 5, (), "/root")),
        ("0:0", (), ResolvedUser(0, 0, (), "/root")),
        ("007", (), ResolvedUser(7, 8, (), "/")),
        ("4294967294", (), ResolvedUser(4294967294, 0, (), "/")),
    ],
)
def test_resolved(root: int, user: str, group_add: tuple[str, ...], wanted: ResolvedUser) -> None:
    assert resolve_user(root, user, group_add) == wanted


@pytest.mark.parametrize(
    "user",
    [
        "nobody",
        "4294967295",
        "99999999999999999999",
        "9" * 5000,
        "-1",
        "+1",
        "1e3",
        "0x1",
        "\u0661",
        "1 ",
        " 1",
        "1\n",
        "user:none",
        "user:4294967295",
        "short",
        "+nis",
        "wrap",
        "negative",
        "unicode",
        "# comment",
        "user:a:b",
        "1_0",
    ],
)
def test_refused(root: int, user: str) -> None:
    with pytest.raises(Invalid):
        resolve_user(root, user)


def test_no_files_at_all(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    assert resolve_user(fd, "") == ResolvedUser(0, 0, (), "/")
    assert resolve_user(fd, "12:34") == ResolvedUser(12, 34, (), "/")
    with pytest.raises(Invalid, match="unable to find user x: no matching entries in passwd file"):
        resolve_user(fd, "x")
    os.close(fd)


@settings(max_examples=300, deadline=None)
@given(user=st.text(max_size=20), passwd=st.binary(max_size=200))
def test_any_string_ends_in_a_valid_id_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, user: str, passwd: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "users"
    (directory / "etc").mkdir(parents=True, exist_ok=True)
    (directory / "etc/passwd").write_bytes(passwd)
    fd = os.open(directory, os.O_PATH)
    try:
        found = resolve_user(fd, user)
    except Invalid:
        return
    finally:
        os.close(fd)
    assert all(0 <= number < (1 << 32) - 1 for number in (found.uid, found.gid, *found.gids))
    name = user.partition(":")[0]
    if name.isascii() and name.isdigit():
        assert found.uid == int(name)
