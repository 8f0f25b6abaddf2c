from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.oci import Reference, parse_reference

D = "sha256:" + "0123456789abcdef" * 4
D512 = "sha512:" + "f" * 128


@pytest.mark.parametrize(
    ("text", "name", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox:2", "docker.io/library/busybox:2", "busybox:2"),
        ("registry-1.docker.io/me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("library/me/app", "docker.io/library/me/app:latest", "library/me/app:latest"),
        ("docker.io/a.b/app", "docker.io/a.b/app:latest", "docker.io/a.b/app:latest"),
        ("docker.io/localhost/app", "docker.io/localhost/app:latest", "docker.io/localhost/app:latest"),
        ("me/deep/er/app:v1", "docker.io/me/deep/er/app:v1", "me/deep/er/app:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("[fe80::1]/app:x", "[fe80::1]/app:x", "[fe80::1]/app:x"),
        ("Reg/app", "Reg/app:latest", "Reg/app:latest"),
        ("registry.example.com/app", "registry.example.com/app:latest", "registry.example.com/app:latest"),
        ("a__b/c.d-e---f", "docker.io/a__b/c.d-e---f:latest", "a__b/c.d-e---f:latest"),
        (f"busybox@{D}", f"docker.io/library/busybox@{D}", f"busybox@{D}"),
        (f"busybox:1@{D}", f"docker.io/library/busybox:1@{D}", f"busybox:1@{D}"),
        (f"r.io/x@{D512}", f"r.io/x@{D512}", f"r.io/x@{D512}"),
        (f"busybox:{'t' * 128}", f"docker.io/library/busybox:{'t' * 128}", f"busybox:{'t' * 128}"),
        ("busybox:_x.y-Z", "docker.io/library/busybox:_x.y-Z", "busybox:_x.y-Z"),
    ],
)
def test_names_as_docker_reads_them(text: str, name: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.familiar) == (name, familiar)
    assert parse_reference(name) == parse_reference(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "busybox ",
        " busybox",
        "busybox\n",
        "busy box",
        "Busybox",
        "me/App",
        "r.io/Me/app",
        ":tag",
        "busybox:",
        "busybox:a:b",
        "busybox:-x",
        "busybox:.x",
        "busybox:a/b",
        f"busybox:{'t' * 129}",
        "/busybox",
        "busybox/",
        "a//b",
        "r.io/",
        "r.io//app",
        "-r.io/app",
        "r.io:port/app",
        "r.io:123456/app",
        "http://r.io/app",
        "r.io/app?x=1",
        "r_x.io/app",
        "../etc/passwd",
        "r.io/../app",
        "r.io/./app",
        "a..b",
        "a___b",
        ".a",
        "a.",
        "-a",
        "_a",
        "b\N{LATIN SMALL LETTER E WITH ACUTE}",
        "busybox:\N{ARABIC-INDIC DIGIT ONE}",
        "busy\0box",
        "busybox@",
        "busybox@sha256:abc",
        f"busybox@{D.upper()}",
        f"busybox@{D}\n",
        f"busybox@{D}@{D}",
        f"@{D}",
        f"busybox@md5:{'0' * 32}",
        "0123456789abcdef" * 4,
        "[::1/app",
        "::1/app",
        "r.io/" + "a" * 256,
        "a" * 5000,
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)


def test_what_to_ask_a_registry_for() -> None:
    assert parse_reference("a").object == "latest"
    assert parse_reference("a:1").object == "1"
    assert parse_reference(f"a:1@{D}").object == D
    assert Reference(registry="r", repository="a").object == "latest"


def test_an_upper_case_name_says_so() -> None:
    with pytest.raises(Invalid, match="must be lowercase"):
        parse_reference("BusyBox")


PART = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
REPOSITORY = st.lists(PART, min_size=1, max_size=4).map("/".join)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
REGISTRY = st.one_of(
    st.tuples(LABEL, LABEL).map(".".join),
    st.tuples(LABEL, st.integers(1, 65535)).map(lambda p: f"{p[0]}:{p[1]}"),
    st.sampled_from(["localhost", "docker.io", "[::1]", "[::1]:80"]),
)
TAG = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
DIGEST = st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(REGISTRY, REPOSITORY, TAG, DIGEST)
def test_every_spelling_means_the_same(registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    text = f"{registry}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = parse_reference(text)
    assert (reference.tag, reference.digest) == (tag or (None if digest else "latest"), digest)
    assert parse_reference(reference.name) == reference
    assert parse_reference(reference.familiar) == reference
    assert len(reference.familiar) <= len(reference.name)


@given(st.text(max_size=40) | st.text(alphabet="ab.:/@-_[]0 A\n", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except Invalid:
        return
    assert parse_reference(reference.name) == reference
    assert not set(reference.name) & set(" \n\t\0\\?#%")
    assert ".." not in reference.name.split("/")
