"""The wire format, without a kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.network.netlink import attribute, attributes, be32, nested, text, u8, u16, u32
from proa.network.nft import INET, Hook, Rule, TableWriter


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), unique_by=lambda pair: pair[0], max_size=8))
def test_attributes_come_back_as_they_were(pairs: list[tuple[int, bytes]]) -> None:
    packed = b"".join(attribute(kind, payload) for kind, payload in pairs)
    assert len(packed) % 4 == 0
    assert attributes(packed) == dict(pairs)
    assert attributes(nested(7, packed))[7] == packed


@given(st.binary(max_size=64), st.integers(0, 20))
def test_garbage_never_raises(data: bytes, offset: int) -> None:
    attributes(data, offset)


def test_numbers_have_the_order_their_subsystem_wants() -> None:
    assert u8(1, 2) == struct.pack("=HHB3x", 5, 1, 2)
    assert u16(1, 2) == struct.pack("=HHH2x", 6, 1, 2)
    assert u32(1, 2) == struct.pack("=HHI", 8, 1, 2)
    assert be32(1, 2) == struct.pack("=HH", 8, 1) + b"\0\0\0\2"
    assert be32(1, -3)[4:] == b"\xff\xff\xff\xfd"
    assert text(3, "lo") == struct.pack("=HH3sx", 7, 3, b"lo\0")


def test_a_rule_is_a_list_of_named_expressions() -> None:
    encoded = Rule().iifname("br0").drop().encode()
    names = []
    offset = 0
    while offset < len(encoded):
        size = struct.unpack_from("=H", encoded, offset)[0]
        names.append(attributes(attributes(encoded[offset : offset + size])[1])[1].rstrip(b"\0").decode())
        offset += (size + 3) & ~3
    assert names == ["meta", "cmp", "immediate"]


def test_a_transaction_names_its_steps_and_skips_empty_ones() -> None:
    writer = TableWriter(INET, "proa-1")
    writer.replace()
    writer.base_chain("forward", "filter", Hook.FORWARD, 0)
    writer.add_elements("published", [])
    writer.remove_elements("published", [])
    assert [step.what for step in writer.steps] == [
        "create table proa-1",
        "delete table proa-1",
        "create table proa-1",
        "create filter chain forward",
    ]


@pytest.mark.parametrize("module", ["pyroute2", "asyncio", "subprocess"])
def test_the_package_stays_light(module: str) -> None:
    """Attaching is on the path of a container's start: nothing heavy may come along."""
    import subprocess
    import sys

    program = f"import sys, proa.network; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
