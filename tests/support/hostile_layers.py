"""Hostile layers, after the breakout tests of containerd, moby and umoci: each is contained, or refused with a reason.

A case is (name, archive, error code or None, what must be in the layer afterwards). Targets like /canary would be hit
by an extractor that follows links or paths out of the layer; `CANARY` stands for the absolute path of a directory that
exists outside.
"""

from __future__ import annotations

import io
import tarfile
from typing import NamedTuple

from layer_archives import (
    BLOCK,
    archive,
    base256,
    directory,
    gnu_long,
    hard_link,
    header,
    member,
    padded,
    pax,
    record,
    symlink,
)

DEEP = b"/".join([b"d"] * 800)


class Case(NamedTuple):
    name: str
    data: bytes
    code: str | None = None
    shows: dict[bytes, bytes] | None = None


def bad_checksum() -> bytes:
    return archive(member(b"a", data=b"x", checksum=b"000000\0 "))


def _sparse_giant() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("big")
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": str(1 << 52),
        }
        tar.addfile(info)
    return buffer.getvalue()


def _old_sparse(size: bytes, chunks: list[tuple[int, int]], data: bytes) -> bytes:
    table = b"".join(b"%011o\0%011o\0" % c for c in chunks).ljust(96, b"\0")
    tail = bytes(386 - 345) + table + b"\0" + size
    return header(b"s", b"S", size=len(data), magic=b"ustar  \0", tail=tail) + padded(data)


def cases(canary: bytes) -> list[Case]:
    up = b"../" * 8
    out = canary.lstrip(b"/")
    return [
        # ---- names
        Case("parent traversal", archive(member(up + b"canary/file", data=b"x")), "layer-path"),
        Case("parent traversal inside", archive(directory(b"a"), member(b"a/../../f", data=b"x")), "layer-path"),
        Case(
            "dot dot that stays",
            archive(directory(b"a"), member(b"a/../f", data=b"x")),
            None,
            {b"a": b"d", b"f": b"-x"},
        ),
        Case("only dot dot", archive(directory(b"..")), "layer-path"),
        Case("absolute name", archive(member(canary + b"/file", data=b"x")), None, {out + b"/file": b"-x"}),
        Case("name of slashes", archive(directory(b"///"), member(b"//f", data=b"x")), None, {b"f": b"-x"}),
        Case("root as a file", archive(member(b"./", data=b"")), "layer-root"),
        Case("root as a symlink", archive(symlink(b".", canary), member(b"file", data=b"x")), "layer-root"),
        Case("root as a symlink by another name", archive(symlink(b"/.", canary)), "layer-root"),
        Case("empty name", archive(member(b"", data=b"x")), "layer-root"),
        Case("root as a hard link", archive(hard_link(b"./.", canary + b"/file")), "layer-root"),
        Case("newline name", archive(member(b"a\nb", data=b"x")), None, {b"a\nb": b"-x"}),
        Case("invalid UTF-8 name", archive(member(b"\xff\xfe", data=b"x")), None, {b"\xff\xfe": b"-x"}),
        Case("escape sequence name", archive(member(b"\x1b[2J", data=b"x")), None, {b"\x1b[2J": b"-x"}),
        Case("NUL in a PAX path", archive(pax([(b"path", b"a\0b")]), member(b"x")), "layer-path"),
        Case("too long a part", archive(pax([(b"path", b"n" * 300)]), member(b"x")), "layer-apply"),
        Case("too long a path", archive(gnu_long(b"n/" * 20000), member(b"x")), "layer-budget"),
        Case("800 levels deep", archive(pax([(b"path", DEEP)]), member(b"x", data=b"x")), None, {DEEP: b"-x"}),
        # ---- links
        Case(
            "through an absolute symlink",
            archive(symlink(b"l", canary), member(b"l/file", data=b"x")),
            None,
            {b"l": b"l" + canary, out + b"/file": b"-x"},
        ),
        Case(
            "through a relative symlink",
            archive(symlink(b"l", up + out), member(b"l/file", data=b"x")),
            None,
            {out + b"/file": b"-x"},
        ),
        Case(
            "through two symlinks",
            archive(symlink(b"a", b"b"), symlink(b"b", up + out), member(b"a/file", data=b"x")),
            None,
            {out + b"/file": b"-x"},
        ),
        Case(
            "symlink below a symlink",
            archive(symlink(b"l", b"/"), symlink(b"l/m", up), member(b"l/m/canary/file", data=b"x")),
            None,
            {b"m": b"l" + up, b"canary/file": b"-x"},
        ),
        Case(
            "symlink loop", archive(symlink(b"a", b"b"), symlink(b"b", b"a"), member(b"a/f", data=b"x")), "layer-parent"
        ),
        Case("symlink to itself", archive(symlink(b"a", b"a"), member(b"a/f", data=b"x")), "layer-parent"),
        Case("empty symlink", archive(symlink(b"a", b"")), "layer-link"),
        Case(
            "file over a symlink",
            archive(symlink(b"l", canary + b"/file"), member(b"l", data=b"x")),
            None,
            {b"l": b"-x"},
        ),
        Case(
            "directory over a symlink",
            archive(symlink(b"l", canary), directory(b"l", mode=0o700), member(b"l/file", data=b"x")),
            None,
            {b"l": b"d", b"l/file": b"-x"},
        ),
        Case(
            "owner through a symlink",
            archive(symlink(b"l", canary + b"/file"), symlink(b"l", canary + b"/file", uid=12, gid=12)),
            None,
            {b"l": b"l" + canary + b"/file"},
        ),
        Case("hard link out", archive(hard_link(b"h", up + out + b"/file")), "layer-path"),
        Case("absolute hard link out", archive(hard_link(b"h", canary + b"/file")), "layer-link"),
        Case(
            "absolute hard link inside",
            archive(member(b"f", data=b"x"), hard_link(b"h", b"/f")),
            None,
            {b"f": b"-x", b"h": b"-x"},
        ),
        Case("hard link through a symlink", archive(symlink(b"l", canary), hard_link(b"h", b"l/file")), "layer-link"),
        Case(
            "hard link to a symlink, then through it",
            archive(symlink(b"l", canary + b"/file"), hard_link(b"h", b"l"), member(b"h", data=b"x")),
            None,
            {b"h": b"-x", b"l": b"l" + canary + b"/file"},
        ),
        Case("hard link to a directory", archive(directory(b"d"), hard_link(b"h", b"d")), "layer-link"),
        Case("hard link to nothing", archive(hard_link(b"h", b"nothing")), "layer-link"),
        Case("hard link to the root", archive(hard_link(b"h", b"/")), "layer-link"),
        Case(
            "hard link to itself",
            archive(member(b"f", data=b"x"), hard_link(b"f", b"f")),
            None,
            {b"f": b"-x"},
        ),
        Case("parent is a file", archive(member(b"f", data=b"x"), member(b"f/g", data=b"x")), "layer-parent"),
        Case("parent is a fifo", archive(member(b"p", b"6"), member(b"p/g", data=b"x")), "layer-parent"),
        # ---- whiteouts
        Case("whiteout without a name", archive(member(b".wh.")), "layer-whiteout"),
        Case("whiteout of dot", archive(member(b"a/.wh..")), "layer-whiteout"),
        Case("whiteout of dot dot", archive(member(b"a/.wh...")), "layer-whiteout"),
        Case("whiteout as a parent", archive(member(b".wh.a/f", data=b"x")), "layer-whiteout"),
        Case(
            "directory that is a whiteout",
            archive(directory(b".wh.a"), member(b".wh.a/f", data=b"x")),
            "layer-whiteout",
        ),
        Case(
            "whiteout through a symlink",
            archive(symlink(b"l", canary), member(b"l/.wh.file")),
            None,
            {b"l": b"l" + canary},
        ),
        Case(
            "opaque through a symlink",
            archive(symlink(b"l", canary), member(b"l/.wh..wh..opq")),
            None,
            {b"l": b"l" + canary},
        ),
        Case("whiteout in dot dot", archive(member(b"../.wh.canary")), "layer-path"),
        Case("device 0:0", archive(member(b"secret", b"3")), None, {}),
        Case("AUFS metadata", archive(directory(b".wh..wh.plnk"), member(b".wh..wh.plnk/1.2", data=b"x")), None, {}),
        # ---- attributes
        Case(
            "overlay's own attributes",
            archive(
                pax(
                    [
                        (b"SCHILY.xattr.trusted.overlay.redirect", b"/../../etc"),
                        (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                        (b"SCHILY.xattr.user.overlay.opaque", b"y"),
                        (b"SCHILY.xattr.trusted.evil", b"y"),
                        (b"SCHILY.xattr.security.selinux", b"y"),
                    ]
                ),
                directory(b"d"),
            ),
            None,
            {b"d": b"d"},
        ),
        Case("nameless attribute", archive(pax([(b"SCHILY.xattr.", b"y")]), member(b"f")), "pax-record"),
        Case("negative size", archive(member(b"f", size=base256(-1, 12))), "tar-number"),
        Case("1 EiB", archive(member(b"f", size=base256(1 << 60, 12))), "tar-number"),
        Case("1 PiB", archive(member(b"f", size=base256(1 << 50, 12))), "layer-budget"),
        Case("8 EiB by PAX", archive(pax([(b"size", b"%d" % (1 << 63))]), member(b"f")), "tar-number"),
        Case("negative owner", archive(member(b"f", uid=base256(-1, 8))), "tar-number"),
        Case("owner that means none", archive(pax([(b"uid", b"4294967295")]), member(b"f")), "tar-number"),
        Case("not octal", archive(member(b"f", size=b"0000000009\0\0")), "tar-header"),
        Case("unknown type", archive(member(b"f", b"Z")), "layer-entry-type"),
        # ---- structure
        Case("wrong checksum", bad_checksum(), "tar-header"),
        Case("no archive", b"#!/bin/sh\nrm -rf /\n" * 100, "tar-header"),
        Case("cut off in a header", archive(member(b"f", data=b"x"))[: BLOCK - 1], "tar-truncated"),
        Case("cut off in a file", archive(member(b"f", data=b"x" * 2000))[: 2 * BLOCK], "tar-truncated"),
        Case("cut off after PAX", pax([(b"path", b"f")]), "tar-truncated"),
        Case("lone zero block", archive(member(b"a"), bytes(BLOCK), member(b"b")), "tar-header"),
        Case("PAX too large", archive(pax([(b"comment", b"x" * (2 << 20))]), member(b"f")), "layer-budget"),
        Case("long name too large", archive(gnu_long(b"x" * (2 << 20)), member(b"f")), "layer-budget"),
        Case("long name without end", archive(header(b"l", b"L", size=base256(1 << 40, 12))), "layer-budget"),
        Case("many extended headers", archive(*[pax([(b"a", b"b")])] * 50, member(b"f")), "layer-budget"),
        Case("malformed PAX", archive(member(b"p", b"x", b"99 path=f\n"), member(b"f")), "pax-record"),
        Case("PAX length of zero", archive(member(b"p", b"x", b"0 path=f\n"), member(b"f")), "pax-record"),
        Case("PAX length that overlaps", archive(member(b"p", b"x", b"3 path=f\n"), member(b"f")), "pax-record"),
        Case(
            "PAX length in other digits",
            archive(member(b"p", b"x", "١٢ path=f\n".encode()), member(b"f")),
            "pax-record",
        ),
        Case("PAX size with a sign", archive(member(b"p", b"x", record(b"size", b"+1")), member(b"f")), "pax-record"),
        Case("name in a global header", archive(pax([(b"path", b"/etc/passwd")], b"g"), member(b"f")), "pax-global"),
        # ---- sparse files
        Case("sparse giant", _sparse_giant(), "layer-budget"),
        Case(
            "old sparse overlap", archive(_old_sparse(b"%011o\0" % 4096, [(0, 10), (5, 10)], b"x" * 20)), "tar-sparse"
        ),
        Case("old sparse beyond the end", archive(_old_sparse(b"%011o\0" % 8, [(0, 20)], b"x" * 20)), "tar-sparse"),
        Case("old sparse negative", archive(_old_sparse(base256(-5, 12), [], b"")), "tar-number"),
        Case(
            "sparse map does not end",
            archive(
                pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"10")]),
                member(b"f", data=b"9" * 4096),
            ),
            "tar-sparse",
        ),
        Case(
            "sparse map of a million holes",
            archive(
                pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"10")]),
                member(b"f", data=b"1000000000000\n".ljust(512, b"\0")),
            ),
            "layer-budget",
        ),
        Case(
            "unknown sparse version",
            archive(pax([(b"GNU.sparse.major", b"7"), (b"GNU.sparse.minor", b"0")]), member(b"f")),
            "tar-sparse",
        ),
    ]
