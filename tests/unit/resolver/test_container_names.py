"""Names of containers by network."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from proa.resolver.cache import Cache
from proa.resolver.host_servers import HostServers, parse
from proa.resolver.names import Names, address_of_reverse


def _texts(found: object) -> list[str]:
    assert isinstance(found, list)
    return [str(address) for address in found]


def test_a_name_is_known_in_its_networks_only() -> None:
    names = Names()
    names.put("n1", "front", "c1", ["web", "WWW"], ["10.0.0.2", "fd00::2"])
    names.put("n2", "back", "c2", ["web"], ["10.1.0.2"])
    assert _texts(names.lookup(["n1"], "web")) == ["10.0.0.2", "fd00::2"]
    assert _texts(names.lookup(["n2", "n1"], "web")) == ["10.1.0.2"]
    assert _texts(names.lookup(["n1"], "www")) == ["10.0.0.2", "fd00::2"]
    assert _texts(names.lookup(["n1", "n2"], "web.back")) == ["10.1.0.2"]
    assert names.lookup(["n1"], "web.back") is None
    assert names.lookup(["n3"], "web") is None
    assert names.reverse(["n1"], ip_address("fd00::2")) == "web.front"
    assert names.reverse(["n2"], ip_address("fd00::2")) is None


def test_an_address_has_the_first_name_that_a_domain_can_have() -> None:
    names = Names()
    names.put("n", "net", "c1", ["k8s_" + "x" * 60, "a..b", "short", "other"], ["10.0.0.2"])
    names.put("n", "net", "c2", ["y" * 300], ["10.0.0.3"])
    names.put("long", "z" * 64, "c3", ["web"], ["10.0.1.2"])
    assert names.reverse(["n"], ip_address("10.0.0.2")) == "short.net"
    assert names.reverse(["n"], ip_address("10.0.0.3")) is None
    assert names.reverse(["long"], ip_address("10.0.1.2")) is None
    names.forget("n", "c2")
    assert _texts(names.lookup(["n"], "a..b")) == ["10.0.0.2"]


def test_holders_of_one_alias_take_turns() -> None:
    names = Names()
    for number in range(3):
        names.put("n", "net", f"c{number}", [f"c{number}", "all"], [f"10.0.0.{number}"])
    first = [_texts(names.lookup(["n"], "all"))[0] for _ in range(6)]
    assert sorted(first) == sorted(["10.0.0.0", "10.0.0.1", "10.0.0.2"] * 2)
    assert len(_texts(names.lookup(["n"], "all"))) == 3
    names.forget("n", "c1")
    assert sorted(_texts(names.lookup(["n"], "all"))) == ["10.0.0.0", "10.0.0.2"]


def test_a_container_that_is_put_again_has_the_new_names_only() -> None:
    names = Names()
    names.put("n", "net", "c", ["old"], ["10.0.0.2"])
    names.put("n", "net", "c", ["new"], ["10.0.0.3"])
    assert names.lookup(["n"], "old") is None
    assert names.reverse(["n"], ip_address("10.0.0.2")) is None
    names.forget("n", "c")
    names.forget("n", "c")
    assert names.lookup(["n"], "new") is None
    names.put("n", "net", "c", ["new"], ["10.0.0.3"])
    names.clear()
    assert names.lookup(["n"], "new") is None


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.10.in-addr.arpa", "10.2.3.4"),
        (".".join("2" + "0" * 27 + "00df") + ".ip6.arpa", "fd00::2"),
        ("4.3.2.in-addr.arpa", None),
        ("x.3.2.10.in-addr.arpa", None),
        ("2.0.ip6.arpa", None),
        ("web", None),
    ],
)
def test_reverse_names(name: str, address: str | None) -> None:
    found = address_of_reverse(name)
    assert (str(found) if found else None) == address


def test_the_cache_forgets_in_time_and_for_room() -> None:
    cache = Cache(limit_bytes=250)
    data = b"\xab\xcd\x81\x80\0\1\0\1\0\0\0\0\1a\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\x0a\0\4\1\2\3\4"
    cache.put(("a",), data, 100.0)
    assert cache.get(("a",), 103.5) == b"\0\0" + data[2:25] + b"\0\0\0\x07" + data[29:]
    assert cache.get(("a",), 110.0) is None
    for number in range(10):
        cache.put((number,), data, 100.0)
    assert [cache.get((number,), 100.0) is not None for number in range(10)] == [False] * 3 + [True] * 7
    refused = bytearray(data)
    refused[3] |= 2
    cache.put(("servfail",), bytes(refused), 100.0)
    assert cache.get(("servfail",), 100.0) is None


def test_the_hosts_servers_follow_its_file(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "resolv.conf"
    servers = HostServers(str(file))
    monkeypatch.setattr("proa.resolver.host_servers.LOOK_EVERY_S", 0.0)
    assert servers.servers() == []
    file.write_text("nameserver 127.0.0.53\nsearch x\n")
    assert servers.servers() == ["127.0.0.53"]
    file.write_text("nameserver 192.0.2.1\nnameserver 2001:db8::1\n nameserver x\n")
    assert servers.servers() == ["192.0.2.1", "2001:db8::1"]
    assert parse(b"nameserver fe80::1%eth0\nnameserver\n\xff\nnameserver 1.1.1.1 # one") == ["1.1.1.1"]
