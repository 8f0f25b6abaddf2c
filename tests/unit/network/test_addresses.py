"""Subnet choice and address allocation."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Conflict, Exhausted, Invalid
from proa.network.addresses import DEFAULT_POOLS, SUBNET_PREFIX, AddressPool, choose_subnet
from proa.network.endpoint import mac_of

networks = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.integers(int(IPv4Address("10.120.0.0")), int(IPv4Address("10.127.255.255"))),
    st.integers(14, 32),
)


@given(st.lists(networks, max_size=12), st.integers(0, 2**32 - 1))
def test_the_chosen_subnet_is_in_a_pool_and_free(taken: list[IPv4Network], seed: int) -> None:
    subnet = choose_subnet(DEFAULT_POOLS, taken, seed)
    assert subnet.prefixlen == SUBNET_PREFIX
    assert any(subnet.subnet_of(pool) for pool in DEFAULT_POOLS)
    assert not any(subnet.overlaps(net) for net in taken)


def test_the_search_starts_where_the_seed_says_and_wraps() -> None:
    pool = [IPv4Network("10.0.0.0/20")]
    assert [str(choose_subnet(pool, [], seed)) for seed in (0, 3, 4)] == ["10.0.0.0/22", "10.0.12.0/22", "10.0.0.0/22"]
    assert str(choose_subnet(pool, [IPv4Network("10.0.12.0/22")], 3)) == "10.0.0.0/22"


def test_a_host_that_routes_the_first_pool_gets_the_next() -> None:
    assert choose_subnet(DEFAULT_POOLS, [IPv4Network("10.0.0.0/8")], 5).subnet_of(DEFAULT_POOLS[1])


def test_exhaustion_names_the_clash() -> None:
    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/20.*this host uses 10\.0\.0\.0/8"):
        choose_subnet([IPv4Network("10.0.0.0/20")], [IPv4Network("10.0.0.0/8")], 0)


def test_addresses_are_unique_and_a_freed_one_rests() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), "bridge")
    taken = [pool.take() for _ in range(5)]
    assert [str(address) for address in taken] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(Exhausted):
        pool.take()
    pool.release(taken[1])
    pool.release(taken[0])
    pool.release(taken[0])
    assert pool.take() == taken[0]
    assert pool.take() == taken[1]


def test_wanted_addresses() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"), "bridge")
    pool.reserve(IPv4Address("10.0.0.3"))
    assert pool.take("10.0.0.4") == IPv4Address("10.0.0.4")
    for taken in ("10.0.0.1", "10.0.0.3", "10.0.0.4"):
        with pytest.raises(Conflict):
            pool.take(taken)
    for wrong in ("10.0.0.0", "10.0.0.7", "10.0.1.2", "::1", "10.0.0.5 ", "010.0.0.5"):
        with pytest.raises(Invalid):
            pool.take(wrong)
    assert [str(pool.take()) for _ in range(3)] == ["10.0.0.2", "10.0.0.5", "10.0.0.6"]


def test_the_mac_follows_from_the_address() -> None:
    assert mac_of(IPv4Address("10.120.0.2").packed) == "02:70:0a:78:00:02"
