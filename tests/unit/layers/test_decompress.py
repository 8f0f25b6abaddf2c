"""Compressed blobs come out whole or not at all, in bounded pieces."""

import gzip
import io
import os
import struct
import zlib

import pytest
import zstandard

from proa.errors import Corrupt, Exhausted, Invalid, Unsupported
from proa.storage.layers import decompress as module
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
from proa.storage.layers.decompress import CHUNK, decompress, detect

DATA = os.urandom(100_000) + b"x" * 1_500_000
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"hello"
GZIP, ZSTD = gzip.compress(DATA), zstandard.compress(DATA)


@pytest.fixture(params=["isal", "zlib"])
def codec(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(module, "igzip", None)
    return request.param


def run(compression, blob, step=None, budget=DEFAULT_BUDGET):
    stream = io.BytesIO(blob)
    chunks = list(decompress(compression, lambda size: stream.read(min(step or size, size)), budget))
    assert all(0 < len(c) <= CHUNK for c in chunks)
    return b"".join(chunks)


@pytest.mark.parametrize("step", [None, 1000, 65537])
def test_gzip(codec, step):
    assert run("gzip", GZIP, step) == DATA
    assert run("gzip", GZIP + GZIP, step) == DATA * 2


@pytest.mark.parametrize("step", [1, 3, 11, 17, 40])
def test_gzip_headers_with_all_fields_in_any_parts(codec, step):
    # RFC 1952: FEXTRA, FNAME, FCOMMENT, FHCRC
    head = b"\x1f\x8b\x08\x1e" + bytes(6) + struct.pack("<H", 3) + b"abc" + b"name\0" + b"comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    raw = zlib.compressobj(wbits=-15)
    body = raw.compress(b"hello") + raw.flush()
    blob = head + body + struct.pack("<II", zlib.crc32(b"hello"), 5)
    assert run("gzip", blob + gzip.compress(b"!") + blob, step) == b"hello!hello"
    for cut in range(1, len(blob)):
        with pytest.raises(Corrupt):
            run("gzip", blob + blob[:cut])
    with pytest.raises(Corrupt, match="endless"):
        run("gzip", head[:10] + b"\xff\xff" + b"x" * 400_000)


BAD_GZIP = {
    "empty": b"",
    "not gzip": b"not gzip at all, just text",
    "no header": GZIP[:1],
    "half a header": GZIP[:8],
    "half": GZIP[: len(GZIP) // 2],
    "no length": GZIP[:-4],
    "no trailer": GZIP[:-8],
    "last byte": GZIP[:-1],
    "wrong checksum": GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:],
    "wrong length": GZIP[:-4] + b"\0\0\0\0",
    "flipped": GZIP[:50_000] + bytes([GZIP[50_000] ^ 0xFF]) + GZIP[50_001:],
    "zeros behind": GZIP + bytes(512),
    "text behind": GZIP + b"text",
    "half a member behind": GZIP + GZIP[:40],
    "one byte of a member behind": GZIP + GZIP[:1],
}


@pytest.mark.parametrize("blob", BAD_GZIP.values(), ids=BAD_GZIP)
def test_bad_gzip(codec, blob):
    with pytest.raises(Corrupt, match="gzip"):
        run("gzip", blob)


@pytest.mark.parametrize("step", [None, 1000, 65537])
def test_zstd(step):
    assert run("zstd", ZSTD, step) == DATA
    assert run("zstd", SKIPPABLE + ZSTD + SKIPPABLE + ZSTD + SKIPPABLE, step) == DATA * 2
    assert run("zstd", zstandard.compress(b""), 1) == b""


BAD_ZSTD = {
    "empty": b"",
    "not zstd": b"not zstd at all",
    "no header": ZSTD[:3],
    "half": ZSTD[: len(ZSTD) // 2],
    "last byte": ZSTD[:-1],
    "zeros behind": ZSTD + bytes(512),
    "text behind": ZSTD + b"text",
    "half a frame behind": ZSTD + ZSTD[:40],
    "half a skippable frame behind": ZSTD + SKIPPABLE[:-1],
    "wrong checksum": (z := zstandard.ZstdCompressor(write_checksum=True).compress(DATA))[:-1] + bytes([z[-1] ^ 1]),
    # libzstd 1.5.7, fed header and block apart, finds nothing wrong with it.
    "257 bytes declared, an empty block": b"\x28\xb5\x2f\xfd\x40\0" + b"\x01\0" + b"\x01\0\0",
    "an empty compressed block": b"\x28\xb5\x2f\xfd\x31\0\0\x05\0\0",
    "100 bytes declared, fewer there": (s := zstandard.compress(b"a" * 100))[:4] + s[4:].replace(b"\x64", b"\x65", 1),
}


@pytest.mark.parametrize("blob", BAD_ZSTD.values(), ids=BAD_ZSTD)
def test_bad_zstd(blob):
    with pytest.raises(Corrupt, match="zstd"):
        run("zstd", blob)


def test_zstd_windows_are_capped():
    parameters = zstandard.ZstdCompressionParameters(window_log=26)
    large = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = large.compress(b"x") + large.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + large.flush()
    with pytest.raises(Exhausted, match="33554432 bytes of zstd window"):
        run("zstd", blob)
    assert run("zstd", blob, budget=Budget(zstd_window_bytes=1 << 26)) == b"x"


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_bombs_stop_at_the_ratio(codec, pack):
    bomb = pack(bytes(64 << 20))
    kind = detect(bomb)
    budget = Budget(ratio=100, ratio_floor_bytes=1 << 20)
    produced = []
    chunks = decompress(kind, io.BytesIO(bomb).read, budget)
    with pytest.raises(Exhausted, match="100 times the compressed size") as caught:
        produced.extend(len(chunk) for chunk in chunks)
    assert caught.value.code == "layer-budget"
    assert sum(produced) < 40 << 20
    # Below the floor anything goes: a layer may hold a large file of zeros.
    assert len(run(kind, bomb, budget=Budget(ratio=100, ratio_floor_bytes=64 << 20))) == 64 << 20


def test_auto_goes_by_the_first_bytes():
    for blob in (DATA, GZIP, ZSTD, SKIPPABLE + ZSTD):
        for step in (None, 1) if len(blob) < 1000 else (None,):
            assert run("auto", blob, step) == DATA
    assert run("auto", b"") == b""
    assert run("auto", b"abc", 1) == b"abc"


@pytest.mark.parametrize("head", [b"BZh91AY", b"\xfd7zXZ\x00\x00"])
def test_what_only_old_dockers_packed_is_unsupported(head):
    with pytest.raises(Unsupported):
        run("auto", head + b"rest")


def test_unknown_compressions():
    with pytest.raises(Invalid):
        run("lzma", b"")
