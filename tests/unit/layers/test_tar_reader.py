"""The reader takes what GNU tar, Python and Go write, and nothing that is cut off or changed."""

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_archives import BLOCK, archive, base256, directory, gnu_long, header, member, pax, symlink

from proa.errors import Corrupt, Exhausted, Invalid, ProaError
from proa.storage.layers.budget import Budget
from proa.storage.layers.reader import TarReader


def entries(data, step=None, budget=None):
    chunks = [data[i : i + (step or len(data))] for i in range(0, len(data), step or len(data) or 1)]
    reader = TarReader(iter(chunks), budget or Budget())
    return [(e, b"".join(map(bytes, reader.data()))) for e in reader]


def one(data):
    ((entry, content),) = entries(data)
    return entry, content


def test_ustar_fields():
    entry, content = one(archive(member(b"f", data=b"hello", mode=0o4755, uid=7, gid=8, mtime=9, prefix=b"dir/sub")))
    assert (entry.name, entry.kind, entry.size, content) == (b"dir/sub/f", "0", 5, b"hello")
    assert (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == (0o4755, 7, 8, 9_000_000_000)


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 4096])
def test_chunks_may_end_anywhere(step):
    data = archive(
        directory(b"d/"), member(b"d/f", data=b"x" * 1000), pax([(b"path", b"p" * 300)]), member(b"q", data=b"y")
    )
    assert [(e.name, c) for e, c in entries(data, step)] == [(b"d/", b""), (b"d/f", b"x" * 1000), (b"p" * 300, b"y")]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_python_writes(style):
    buffer = io.BytesIO()
    wanted = []
    with tarfile.open(fileobj=buffer, mode="w", format=style) as tar:
        for name, size in (("a", 0), ("b/" + "c" * 90, 513), ("d" * 60 + "/" + "e" * 60, 512), ("ü", 1)):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = size, 0o640, 1000, 1234567890
            tar.addfile(info, io.BytesIO(b"z" * size))
            wanted.append((name.encode(), b"z" * size))
    got = entries(buffer.getvalue())
    assert [(e.name, c) for e, c in got] == wanted
    assert {(e.mode, e.uid, e.mtime_ns) for e, _ in got} == {(0o640, 1000, 1234567890 * 10**9)}


@pytest.mark.parametrize("style", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_reads_what_gnu_tar_writes(tmp_path, style):
    source = tmp_path / "s"
    deep = source / ("n" * 90 if style == "v7" else "n" * 90 + "/" + "m" * 60)
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"deep")
    os.symlink("t" * (90 if style in ("v7", "ustar") else 150), source / "link")
    os.link(deep, source / "hard")
    out = subprocess.run(
        ["/usr/bin/tar", f"--format={style}", "--sort=name", "-C", source, "-cf", "-", "."],
        capture_output=True,
        check=True,
    ).stdout
    kinds = {e.name.strip(b"./").decode(): (e.kind, c) for e, c in entries(out)}
    names = sorted(str(p.relative_to(source)) for p in source.rglob("*"))
    assert sorted(n for n in kinds if n) == names
    assert {k for k, _ in kinds.values()} == {"0", "1", "2", "5"}
    assert b"deep" in {c for _, c in kinds.values()}


def test_go_reads_header_only_kinds_without_data_and_so_do_we():
    data = archive(header(b"d", b"5", size=999), header(b"l", b"2", size=999, linkname=b"x"), member(b"f", data=b"x"))
    assert [(e.kind, e.size) for e, _ in entries(data)] == [("5", 0), ("2", 0), ("0", 1)]


def test_a_v7_directory_is_a_file_with_a_slash():
    entry, _ = one(archive(header(b"d/", b"\0", magic=bytes(8))))
    assert entry.kind == "5"
    entry, _ = one(archive(header(b"d", b"\0", magic=bytes(8))))
    assert entry.kind == "0"


def test_a_contiguous_file_is_a_file():
    assert one(archive(member(b"f", b"7", b"x")))[0].kind == "0"


@pytest.mark.parametrize("field", [b"0000644\0", b" 644 \0\0\0", b"000644 \0", b"\0\0\0\0\x00644", b"644\0junk"])
def test_octal_numbers_as_writers_pad_them(field):
    assert one(archive(member(b"f", uid=field)))[0].uid == 0o644


def test_base256_numbers():
    entry, _ = one(archive(member(b"f", uid=base256(3_000_000, 8), mtime=base256(-5, 12))))
    assert (entry.uid, entry.mtime_ns) == (3_000_000, -5_000_000_000)


@pytest.mark.parametrize(
    "field",
    [b"1_0\0\0\0\0\0", b"0o17\0\0\0\0", b"-1\0\0\0\0\0\0", b"+1\0\0\0\0\0\0", b"0x1\0\0\0\0\0", b"8\0\0\0\0\0\0\0"],
)
def test_what_int_takes_and_tar_does_not(field):
    with pytest.raises(Corrupt):
        entries(archive(member(b"f", uid=field)))


def test_signed_checksums_of_old_suns():
    block = member(b"\xff\xfe")
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:512])
    assert one(archive(member(b"\xff\xfe", checksum=b"%06o\0 " % signed)))[0].name == b"\xff\xfe"


def test_every_bit_of_a_header_counts():
    data = bytearray(archive(member(b"f", data=b"x")))
    for position in [*range(148), *range(156, 512)]:
        data[position] ^= 0x04
        with pytest.raises(ProaError):
            entries(bytes(data))
        data[position] ^= 0x04


def test_pax_records_override_the_header_and_end_with_their_entry():
    records = [
        (b"path", b"long/" + b"p" * 200),
        (b"uid", b"3000000"),
        (b"gid", b"3000001"),
        (b"mtime", b"1700000000.123456789"),
        (b"size", b"3"),
        (b"SCHILY.xattr.user.a", b"\0\n=\xff"),
        (b"comment", b"ignored"),
        (b"ctime", b"ignored too"),
    ]
    (first, content), (second, _) = entries(archive(pax(records), member(b"f", data=b"abc", size=0), member(b"g")))
    assert first.name == b"long/" + b"p" * 200
    assert (first.uid, first.gid, first.mtime_ns) == (3000000, 3000001, 1700000000123456789)
    assert (first.xattrs, content) == ({b"user.a": b"\0\n=\xff"}, b"abc")
    assert (second.name, second.uid, second.xattrs) == (b"g", 0, None)


@pytest.mark.parametrize(
    ("text", "wanted"), [(b"1", 10**9), (b"-1.5", -1500000000), (b"1.", 10**9), (b"0.1234567891", 123456789)]
)
def test_pax_times(text, wanted):
    assert one(archive(pax([(b"mtime", text)]), member(b"f")))[0].mtime_ns == wanted


def test_global_records_hold_until_the_next_global_header():
    data = archive(pax([(b"uid", b"5")], b"g"), member(b"a"), pax([(b"uid", b"6")]), member(b"b"), member(b"c"))
    assert [e.uid for e, _ in entries(data)] == [5, 6, 5]


def test_gnu_long_names_beat_pax_and_end_at_nul():
    data = archive(gnu_long(b"n" * 150), gnu_long(b"t" * 150, b"K"), symlink(b"x", b"y"))
    entry, _ = one(data)
    assert (entry.name, entry.linkname) == (b"n" * 150, b"t" * 150)


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"anything", bytes(100)])
def test_ends_that_are_fine(end):
    data = archive(member(b"f", data=b"x"), end=end)
    if len(end) % BLOCK and len(end) < BLOCK:
        with pytest.raises(Corrupt):
            entries(data)
    else:
        assert len(entries(data)) == 1


def test_an_empty_stream_is_an_empty_archive():
    assert entries(b"") == []


def test_a_missing_last_padding_is_fine():
    assert one(header(b"f", size=3) + b"abc")[1] == b"abc"


def test_what_follows_the_end_is_read_but_not_believed():
    data = archive(member(b"a")) + archive(member(b"b"))
    chunks = iter([data[:600], data[600:]])
    assert [e.name for e in TarReader(chunks)] == [b"a"]
    assert next(chunks, None) is None


def test_cuts_are_seen():
    """Blocks: 0 extended header, 1 its data, 2 header of f, 3-4 its 700 bytes, 5 header of g, 6 its data, 7-8 end."""
    data = archive(pax([(b"path", b"f")]), member(b"f", data=b"x" * 700), member(b"g", data=b"y"))
    for cut in range(0, len(data), 37):
        block, rest = divmod(cut, BLOCK)
        fine = (
            cut == 0 or (block == 4 and rest >= 700 - 512) or (block == 5 and rest == 0) or (block == 6 and rest >= 1)
        )
        fine = fine or (block == 7 and rest == 0) or block == 8
        if fine:
            entries(data[:cut])
        else:
            with pytest.raises(Corrupt):
                entries(data[:cut])


@pytest.mark.parametrize(
    ("budget", "data"),
    [
        (Budget(entries=3), archive(*[member(b"f")] * 4)),
        (Budget(unpacked_bytes=4000), archive(*[member(b"f")] * 9)),
        (Budget(unpacked_bytes=4000), archive(member(b"f", size=5000))),
        (Budget(file_bytes=10), archive(member(b"f", data=b"x" * 11))),
        (Budget(header_bytes=600), archive(pax([(b"a", b"b" * 300)]), pax([(b"a", b"b" * 300)]), member(b"f"))),
        (Budget(name_bytes=10), archive(member(b"n" * 11))),
        (Budget(unpacked_bytes=4000), archive(member(b"f")) + bytes(9000)),
    ],
)
def test_budgets(budget, data):
    with pytest.raises(Exhausted, match="more than"):
        entries(data, 512, budget)


def test_errors_tell_where():
    with pytest.raises(Invalid) as caught:
        entries(archive(member(b"a"), member(b"f", size=base256(-1, 12))))
    assert caught.value.fields["offset"] == 1024


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_archives_fail_with_a_typed_error(data):
    blob = bytearray(
        archive(
            pax(
                [
                    (b"path", b"f" * 120),
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.realsize", b"9"),
                ]
            ),
            member(b"f", data=b"1\n0\n1\n".ljust(512, b"\0") + b"x"),
            gnu_long(b"g" * 130),
            symlink(b"g", b"h"),
            member(b"s", b"S", size=0, tail=bytes(41) + b"%011o\0%011o\0" % (0, 0), magic=b"ustar  \0"),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.integers(0, len(blob) // BLOCK - 1)) * BLOCK
        position = block + data.draw(st.integers(0, 511))
        blob[position] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # so that it gets past the checksum
            header_bytes = bytes(blob[block : block + 148]) + b" " * 8 + bytes(blob[block + 156 : block + 512])
            blob[block + 148 : block + 156] = b"%06o\0 " % sum(header_bytes)
    try:
        for entry, content in entries(bytes(blob), budget=Budget(unpacked_bytes=1 << 20)):
            assert len(content) == entry.stored
    except ProaError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_noise_fails_with_a_typed_error(noise):
    try:
        entries(noise, 100)
    except ProaError:
        pass
