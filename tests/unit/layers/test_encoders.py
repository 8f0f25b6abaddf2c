"""Encoders that use all processors: right, the same on any number of them, and of every level."""

from __future__ import annotations

import gzip
import os

import pytest
import zstandard

from proa.errors import Invalid
from proa.storage.layers.encoders import Compression, make_encoder, parse_compression

DATA = os.urandom(100_000) + bytes(3 << 20) + b"words and words " * 100_000


def packed(compression: Compression, data: bytes, threads: int, piece: int = 70_000) -> bytes:
    encoder = make_encoder(compression, threads)
    assert encoder is not None
    out = [encoder.compress(data[i : i + piece]) for i in range(0, len(data), piece)]
    return b"".join([*out, encoder.flush()])


@pytest.mark.parametrize(
    "text", ["gzip", "gzip:0", "gzip:1", "gzip:3", "gzip:6", "gzip:9", "zstd", "zstd:1", "zstd:12"]
)
@pytest.mark.parametrize(
    "data",
    [b"", b"x", DATA, DATA[: 1 << 20], bytes(5 << 20), b"x" * 999 + bytes(5 << 20)],
    ids=["empty", "byte", "long", "one block", "zeros", "zeros behind"],
)
def test_any_number_of_threads_makes_the_same_bytes(text: str, data: bytes) -> None:
    compression = parse_compression(text)
    one = packed(compression, data, 1)
    assert packed(compression, data, 3, piece=1 << 20) == one
    if compression.format == "gzip":
        assert gzip.decompress(one) == data
        assert one[4:8] == bytes(4), "a time in the header"
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(one) == data


def test_levels_count() -> None:
    sizes = [len(packed(parse_compression(f"gzip:{level}"), DATA[-400_000:], 2)) for level in (0, 1, 6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[-1]


@pytest.mark.parametrize(
    "text",
    ["", "gz", "gzip:", "gzip:10", "gzip:-1", "gzip:1.5", "zstd:0", "zstd:23", "none:1", "gzip:\u0663", "zstd:1:2"],
)
def test_bad_compressions(text: str) -> None:
    with pytest.raises(Invalid):
        parse_compression(text)


def test_no_compression() -> None:
    assert make_encoder(parse_compression("none")) is None
