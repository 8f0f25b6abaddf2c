"""Headers that save writes, streams that load reads."""

import io
import tarfile

import pytest

from proa.errors import Corrupt, Exhausted
from proa.storage.layers.budget import DEFAULT_BUDGET
from proa.storage.layers.decompress import decompress
from proa.transfer.archive_write import _header


@pytest.mark.parametrize("name", ["index.json", "blobs/sha256/" + "a" * 64, "blobs/sha512/" + "b" * 128])
@pytest.mark.parametrize("size", [0, 5, (8 << 30) - 1, 8 << 30, 1 << 40])
def test_headers_are_tar(name, size):
    with tarfile.open(fileobj=io.BytesIO(_header(name, size) + bytes(1024)), mode="r:") as tar:
        entry = tar.next()
    assert (entry.name, entry.size, entry.mode, entry.mtime, entry.uid) == (name, size, 0o644, 0, 0)


def test_short_reads_and_concatenated_streams():
    import bz2
    import lzma

    class Slow(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(min(size, 3))

    for pack in (bytes, bz2.compress, lzma.compress):
        assert b"".join(decompress("any", Slow(pack(b"abc" * 1000)).read)) == b"abc" * 1000
    assert b"".join(decompress("any", io.BytesIO(bz2.compress(b"a") + bz2.compress(b"b")).read)) == b"ab"
    assert b"".join(decompress("any", io.BytesIO(lzma.compress(b"a") + bytes(8) + lzma.compress(b"b")).read)) == b"ab"


def test_broken_and_explosive_streams():
    import bz2
    import lzma

    for pack in (bz2.compress, lzma.compress):
        data = pack(bytes(range(256)) * 1000)
        with pytest.raises(Corrupt, match="truncated"):
            list(decompress("any", io.BytesIO(data[:-20]).read))
        with pytest.raises(Corrupt, match="damaged"):
            list(decompress("any", io.BytesIO(data[: len(data) // 2] + b"\0" * 50 + data[len(data) // 2 :]).read))
        budget = DEFAULT_BUDGET._replace(ratio_floor_bytes=1 << 20, ratio=50)
        with pytest.raises(Exhausted):
            list(decompress("any", io.BytesIO(pack(bytes(64 << 20))).read, budget))
