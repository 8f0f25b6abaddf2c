from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.oci import Platform, host_platform
from proa.oci.platform import nearest, parse_platform


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("windows/amd64", "windows/amd64"),
        ("arm64", "linux/arm64/v8"),
        ("x86_64", "linux/amd64"),
        ("armhf", "linux/arm/v7"),
    ],
)
def test_what_users_write(text: str, shown: str) -> None:
    assert str(parse_platform(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "/amd64", "linux//v8", "a/b/c/d", "linux/am d64", "linux/\xe4md64", "l\n"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(Invalid, match="invalid platform"):
        parse_platform(text)


def test_an_operating_system_alone_means_this_machine() -> None:
    assert parse_platform("linux") == Platform(os="linux", architecture=host_platform().architecture)


@pytest.mark.parametrize(
    ("mine", "wanted", "answer"),
    [
        (("linux", "amd64", ""), ("linux", "amd64", ""), True),
        (("linux", "x86_64", ""), ("linux", "amd64", ""), True),
        (("linux", "aarch64", ""), ("linux", "arm64", "v8"), True),
        (("linux", "arm", ""), ("linux", "arm", "v7"), True),
        (("linux", "arm", "v6"), ("linux", "arm", "v7"), True),
        (("linux", "arm", "v7"), ("linux", "arm", "v6"), False),
        (("linux", "arm", "v8"), ("linux", "arm", ""), False),
        (("linux", "arm64", "v8"), ("linux", "arm64", "v9"), True),
        (("linux", "amd64", "v1"), ("linux", "amd64", ""), True),
        (("linux", "amd64", ""), ("linux", "amd64", "v3"), True),
        (("linux", "arm", "odd"), ("linux", "arm", "v7"), False),
        (("", "amd64", ""), ("linux", "amd64", ""), True),
        (("windows", "amd64", ""), ("linux", "amd64", ""), False),
        (("linux", "amd64", "v3"), ("linux", "amd64", ""), False),
        (("linux", "386", ""), ("linux", "amd64", ""), False),
    ],
)
def test_matches(mine: tuple[str, str, str], wanted: tuple[str, str, str], answer: bool) -> None:
    def platform(parts: tuple[str, str, str]) -> Platform:
        return Platform(os=parts[0], architecture=parts[1], variant=parts[2])

    assert platform(mine).matches(platform(wanted)) is answer


def test_this_machine() -> None:
    assert host_platform().os == "linux"
    assert host_platform().architecture == {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        platform = parse_platform(text)
    except Invalid:
        return
    assert parse_platform(str(platform)) == platform
    assert str(platform).isascii()


def test_the_nearest_platform_wins() -> None:
    def offered(*texts: str) -> list[Platform]:
        return [parse_platform(text) for text in texts]

    def chosen(wanted: str, *texts: str) -> int | None:
        return nearest(offered(*texts), parse_platform(wanted))

    assert chosen("linux/arm/v7", "linux/arm/v5", "linux/arm/v6", "linux/arm64") == 1
    assert chosen("linux/amd64/v3", "linux/amd64", "linux/amd64/v2", "linux/amd64/v4") == 1
    assert chosen("linux/amd64", "linux/386") is None, "asked for by name, it is to be just that"
    assert nearest([None, *offered("linux/s390x")]) is None


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="what a machine also runs depends on it")
def test_this_machine_also_runs_32_bit_programs() -> None:
    linux = [Platform(os="linux", architecture=a) for a in ("arm64", "386", "amd64")]
    assert nearest(linux) == 2
    assert nearest(linux[:2]) == 1
