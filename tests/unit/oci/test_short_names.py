from __future__ import annotations

import pytest

from proa.errors import Invalid
from proa.oci import DOCKER_NAMES, ShortNames, parse_reference

OURS = ShortNames(
    default_registry="registry.lan:5000",
    aliases={"fedora": "registry.example/fedora", "tools/editor": "quay.example/team/editor"},
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("busybox", "registry.lan:5000/busybox:latest"),
        ("team/app:1", "registry.lan:5000/team/app:1"),
        ("fedora", "registry.example/fedora:latest"),
        ("fedora:40", "registry.example/fedora:40"),
        (f"fedora@sha256:{'a' * 64}", f"registry.example/fedora@sha256:{'a' * 64}"),
        ("tools/editor:2", "quay.example/team/editor:2"),
        ("fedora/other", "registry.lan:5000/fedora/other:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1"),
    ],
)
def test_names_are_read_as_configured(text: str, name: str) -> None:
    assert OURS.parse(text).name == name


@pytest.mark.parametrize(
    "text", ["busybox:1", "docker.io/busybox", "fedora", "docker.io/library/fedora:2", "a/b", "tools/editor"]
)
@pytest.mark.parametrize("names", [OURS, DOCKER_NAMES, ShortNames(aliases={"busybox": "docker.io/library/fedora"})])
def test_what_is_shown_is_read_back_as_the_same(names: ShortNames, text: str) -> None:
    reference = names.parse(text)
    assert names.parse(names.familiar(reference)) == reference
    bare = names.parse(names.familiar_repository(reference))
    assert (bare.registry, bare.repository) == (reference.registry, reference.repository)


def test_without_configuration_names_are_dockers() -> None:
    for text in ("busybox", "a/b:1", "reg.example/x"):
        assert DOCKER_NAMES.parse(text) == parse_reference(text)
        assert DOCKER_NAMES.familiar(parse_reference(text)) == parse_reference(text).familiar


@pytest.mark.parametrize("text", ["", "UPPER", "f" * 64, "fedora:ta g", "-x"])
def test_what_is_no_name_with_docker_is_none_here(text: str) -> None:
    with pytest.raises(Invalid):
        OURS.parse(text)


@pytest.mark.parametrize(
    "names",
    [
        ShortNames(default_registry="registry"),
        ShortNames(default_registry="registry.lan/path"),
        ShortNames(default_registry="bad host.lan"),
        ShortNames(aliases={"x": "y"}),
        ShortNames(aliases={"reg.lan/x": "reg.lan/y"}),
        ShortNames(aliases={"x": "reg.lan/y:1"}),
        ShortNames(aliases={"x:1": "reg.lan/y"}),
        ShortNames(aliases={"X": "reg.lan/y"}),
    ],
)
def test_a_configuration_that_cannot_be(names: ShortNames) -> None:
    with pytest.raises(Invalid):
        names.check()
    OURS.check()
