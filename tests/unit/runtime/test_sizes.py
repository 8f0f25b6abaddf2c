"""One grammar of sizes on the command line and in the engine: docker's (go-units, RAMInBytes)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.cli import values
from proa.errors import Invalid
from proa.runtime.sizes import byte_size

# The examples of go-units' own test for RAMInBytes, as far as it is no float that nobody writes (1e3, inf).
SIZES = {
    "32": 32,
    "32b": 32,
    "32B": 32,
    "32k": 32 << 10,
    "32K": 32 << 10,
    "32kb": 32 << 10,
    "32Kb": 32 << 10,
    "32Kib": 32 << 10,
    "32KIB": 32 << 10,
    "32Mb": 32 << 20,
    "32MiB": 32 << 20,
    "32Gb": 32 << 30,
    "32Tb": 32 << 40,
    "32Pb": 32 << 50,
    "32PB": 32 << 50,
    "32P": 32 << 50,
    "32.3": 32,
    "32 mb": 32 << 20,
    "32.5Kb": 65 << 9,
    "32.5 kB": 65 << 9,
    "32.5 B": 32,
    "0": 0,
    "0.0": 0,
    "0 b": 0,
    "1.": 1,
    ".5k": 512,
    "300 ": 300,
}
NO_SIZES = [
    "",
    "hello",
    "-32",
    " 32 ",
    "32  mb",
    "32m b",
    "32bm",
    "32bb",
    "32xyz",
    "k",
    ".",
    ". b",
    "1e3",
    "1_0",
    "٣",
    "9999999P",
]


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text: str) -> None:
    assert byte_size(text) == SIZES[text]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Invalid, match="invalid size"):
        byte_size(text)


@given(
    st.one_of(
        st.text(alphabet="0123456789.bBiIkKmMgGtTpP -_e", min_size=1, max_size=8), st.text(min_size=1, max_size=5)
    )
)
def test_the_command_line_reads_them_alike(text: str) -> None:
    """It may not import the runtime: it has a reader of its own."""
    if text == "-1":
        return
    try:
        expected = byte_size(text)
    except Invalid:
        with pytest.raises(Invalid, match="invalid size"):
            values.byte_size(text, "memory")
    else:
        assert values.byte_size(text, "memory") == expected
