"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.network.files import host_resolv_conf, render_hostname, render_hosts, render_resolv_conf


def test_hosts() -> None:
    content = render_hosts(
        "web",
        ["10.120.0.2", "fd00::2"],
        domain="example.org",
        extra=[("db", "192.0.2.7"), ("host.docker.internal", "host-gateway"), ("six", "2001:db8::1")],
        host_gateway="10.120.0.1",
    ).decode()
    assert content.splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        "192.0.2.7\tdb",
        "10.120.0.1\thost.docker.internal",
        "2001:db8::1\tsix",
        "10.120.0.2\tweb.example.org web",
        "fd00::2\tweb.example.org web",
    ]
    assert render_hosts("web").endswith(b"ip6-allrouters\n")
    assert render_hostname("web") == b"web\n"


@pytest.mark.parametrize("bad", ["", "a\n", "a\nroot", "a\0", "a b", "a\tb", "a#b", "a\r", "é", "-a", ".", "a" * 300])
def test_names_that_would_become_lines_are_refused(bad: str) -> None:
    for render in (
        lambda: render_hostname(bad),
        lambda: render_hosts(bad, ["10.0.0.2"]),
        lambda: render_hosts("web", ["10.0.0.2"], domain=bad or "\n"),
        lambda: render_hosts("web", extra=[(bad, "10.0.0.2")]),
    ):
        with pytest.raises(Invalid):
            render()


@pytest.mark.parametrize("bad", ["", "x", "10.0.0.2\n", "10.0.0.2\n10.0.0.3 evil", "fe80::1%a\nb", "::1 \0", "1.2.3"])
def test_addresses_that_are_none_are_refused(bad: str) -> None:
    for render in (
        lambda: render_hosts("web", bad or " "),
        lambda: render_hosts("web", extra=[("db", bad)]),
        lambda: render_resolv_conf(b"", nameservers=[bad]),
    ):
        with pytest.raises(Invalid):
            render()


def test_host_gateway_needs_one() -> None:
    with pytest.raises(Invalid, match="host-gateway"):
        render_hosts("web", extra=[("h", "host-gateway")])


HOST = b"""# made by hand
nameserver 127.0.0.1
nameserver 192.0.2.53
nameserver ::1
nameserver not-an-address
search example.org corp.example.org
options ndots:2
options edns0
"""


def test_the_hosts_loopback_servers_are_left_out() -> None:
    assert render_resolv_conf(HOST) == (
        b"nameserver 192.0.2.53\nsearch example.org corp.example.org\noptions ndots:2 edns0\n"
    )
    assert render_resolv_conf(HOST, own_namespace=False).count(b"nameserver") == 3
    assert render_resolv_conf(b"nameserver 127.0.0.1\n") == b"nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_what_the_user_gives_replaces_the_hosts() -> None:
    assert render_resolv_conf(HOST, nameservers=["127.0.0.1", "192.0.2.1"], search=["."], options=["rotate"]) == (
        b"nameserver 127.0.0.1\nnameserver 192.0.2.1\noptions rotate\n"
    )
    for bad in ("a\nnameserver 192.0.2.66", "a b", "", "a\0"):
        with pytest.raises(Invalid):
            render_resolv_conf(HOST, search=[bad])
        with pytest.raises(Invalid):
            render_resolv_conf(HOST, options=[bad])


@given(st.binary(max_size=200))
def test_any_host_file_gives_a_file_of_known_lines(content: bytes) -> None:
    for line in render_resolv_conf(content).decode().splitlines():
        assert line.split()[0] in {"nameserver", "search", "options"}


def test_behind_systemd_resolveds_stub_are_the_real_servers(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_bytes(b"nameserver 127.0.0.53\noptions edns0 trust-ad\n")
    real.write_bytes(b"nameserver 192.0.2.53\n")
    assert host_resolv_conf(stub, real) == real.read_bytes()
    real.unlink()
    assert host_resolv_conf(stub, real) == stub.read_bytes()
    assert host_resolv_conf(tmp_path / "none", real) == b""
