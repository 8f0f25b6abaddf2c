"""What proa writes, GNU tar and Python read; the same input gives the same bytes; one pass gives both digests."""

import gzip
import hashlib
import io
import subprocess
import tarfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.storage.layers import CompressedLayerWriter
from proa.storage.layers.archive import TarWriter, header
from proa.storage.layers.headers import BLOCK, Entry
from proa.storage.layers.reader import TarReader


def entry(name=b"f", **fields):
    made = Entry()
    made.name = name
    for key, value in fields.items():
        setattr(made, key, value)
    made.size = made.stored
    return made


def read_back(made, data=b""):
    sink = io.BytesIO()
    writer = TarWriter(sink)
    writer.add(made, [data])
    assert writer.finish() == "sha256:" + hashlib.sha256(sink.getvalue()).hexdigest()
    assert writer.size == len(sink.getvalue())
    assert writer.size % BLOCK == 0
    reader = TarReader(iter([sink.getvalue()]))
    got = reader.next()
    assert b"".join(map(bytes, reader.data())) == data
    assert reader.next() is None
    return got


@pytest.mark.parametrize(
    "name",
    [
        b"f",
        b"n" * 100,
        b"n" * 101,
        b"d/" * 49 + b"f",
        b"d" * 155 + b"/" + b"n" * 100,
        b"d" * 156 + b"/" + b"n" * 100,
        b"d/" * 2000 + b"f",
        b"\xff\n\x01",
        b"a/" * 100,
        b"d" * 120 + b"/",
    ],
)
def test_names_of_any_length(name):
    assert read_back(entry(name)).name == name


def test_plain_entries_take_one_block():
    assert len(header(entry(b"n" * 100, uid=0o7777777, stored=1 << 32, mtime_ns=10**18))) == BLOCK
    assert len(header(entry(b"d" * 155 + b"/" + b"n" * 100))) == BLOCK


def test_what_ustar_cannot_hold():
    made = entry(uid=1 << 22, gid=1 << 31, stored=1 << 34, mtime_ns=-1_500_000_000, linkname=b"t" * 300)
    got = TarReader(iter([header(made) + bytes(BLOCK)])).next()
    assert (got.uid, got.gid, got.size, got.mtime_ns) == (1 << 22, 1 << 31, 1 << 34, -1_500_000_000)


@settings(max_examples=150, deadline=None)
@given(
    name=st.binary(min_size=1, max_size=400).filter(lambda n: b"\0" not in n),
    target=st.binary(min_size=1, max_size=300).filter(lambda n: b"\0" not in n),
    mode=st.integers(0, 0o7777),
    ids=st.tuples(st.integers(0, 0xFFFFFFFE), st.integers(0, 0xFFFFFFFE)),
    mtime_ns=st.integers(-(2**40) * 10**6, 2**63),
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=30).filter(lambda n: not set(n) & {0, 61}), st.binary(max_size=300), max_size=4
    ),
)
def test_entries_read_back_as_they_were(name, target, mode, ids, mtime_ns, xattrs):
    made = entry(
        name, kind="2", linkname=target, mode=mode, uid=ids[0], gid=ids[1], mtime_ns=mtime_ns, xattrs=xattrs or None
    )
    got = read_back(made)
    for field in ("name", "kind", "linkname", "mode", "uid", "gid", "mtime_ns", "xattrs"):
        assert getattr(got, field) == getattr(made, field), field


def test_other_readers_agree(tmp_path):
    sink = io.BytesIO()
    writer = TarWriter(sink)
    writer.add(entry(b"d/", kind="5", mode=0o755))
    writer.add(
        entry(b"d/" + b"x" * 200, stored=3, mode=0o640, uid=4_000_000, mtime_ns=1_500_000_000_250_000_000), [b"abc"]
    )
    writer.add(entry(b"l", kind="2", linkname=b"y" * 150, mode=0o777))
    writer.add(entry(b"c", kind="3", major=5, minor=300, mode=0o600))
    writer.finish()
    path = tmp_path / "a.tar"
    path.write_bytes(sink.getvalue())
    listed = subprocess.run(["/usr/bin/tar", "--numeric-owner", "-tvf", path], capture_output=True, check=True).stdout
    for text in (b"4000000/0", b"5,300", b"l -> " + b"y" * 150):
        assert text in listed
    with tarfile.open(path) as tar:
        file = tar.getmember("d/" + "x" * 200)
        assert (file.uid, file.mtime, tar.extractfile(file).read()) == (4000000, 1500000000.25, b"abc")


@pytest.mark.parametrize(
    ("compression", "level", "unpack"),
    [
        ("gzip", None, gzip.decompress),
        ("gzip", 0, gzip.decompress),
        ("gzip", 9, gzip.decompress),
        ("zstd", None, lambda b: zstandard.ZstdDecompressor().decompressobj().decompress(b)),
        ("none", None, bytes),
    ],
)
def test_both_digests_in_one_pass(compression, level, unpack):
    data = [b"%d," % n * 1000 for n in range(200)]
    results = []
    for _ in range(2):
        out = io.BytesIO()
        writer = CompressedLayerWriter(out, compression, level)
        for piece in data:
            writer.write(piece)
        results.append((writer.finish(), writer.finish(), out.getvalue()))
    assert results[0] == results[1]
    layer, again, blob = results[0]
    assert layer == again
    assert unpack(blob) == b"".join(data)
    assert layer.diff_id == "sha256:" + hashlib.sha256(b"".join(data)).hexdigest()
    assert (layer.digest, layer.size) == ("sha256:" + hashlib.sha256(blob).hexdigest(), len(blob))
    assert layer.tar_bytes == sum(map(len, data))


def test_gzip_headers_hold_no_time():
    for level in (0, 3, 6):
        out = io.BytesIO()
        with CompressedLayerWriter(out, "gzip", level) as writer:
            writer.write(b"x")
        assert out.getvalue()[3:8] == bytes(5)


@pytest.mark.parametrize(("compression", "level"), [("gzip", 10), ("zstd", 0), ("zstd", 99), ("xz", None), ("none", 1)])
def test_other_compressions_are_refused(compression, level):
    with pytest.raises(Invalid):
        CompressedLayerWriter(io.BytesIO(), compression, level)
