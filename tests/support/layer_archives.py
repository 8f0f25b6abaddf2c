"""Layer archives made byte by byte, so that they can be wrong on purpose; and directory trees as comparable values."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

BLOCK = 512


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    raw = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    raw[0] = 0xFF if value < 0 else raw[0] | 0x80
    return bytes(raw)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_000_000,
    linkname: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int = 0,
    minor: int = 0,
    prefix: bytes = b"",
    checksum: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    def field(value: int | bytes, width: int) -> bytes:
        return value if isinstance(value, bytes) else octal(value, width)

    block = b"".join(
        (
            name.ljust(100, b"\0")[:100],
            octal(mode, 8),
            field(uid, 8),
            field(gid, 8),
            field(size, 12),
            field(mtime, 12),
            b" " * 8,
            kind,
            linkname.ljust(100, b"\0")[:100],
            magic,
            bytes(64),
            octal(major, 8),
            octal(minor, 8),
            (prefix.ljust(155, b"\0") + bytes(12)) if not tail else tail.ljust(167, b"\0"),
        )
    )
    assert len(block) == BLOCK
    return block[:148] + (b"%06o\0 " % sum(block) if checksum is None else checksum) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, kind: bytes = b"0", data: bytes = b"", **fields: Any) -> bytes:
    fields.setdefault("size", len(data))
    long = gnu_long(name) if len(name) > 100 else b""
    if len(fields.get("linkname", b"")) > 100:
        long += gnu_long(fields["linkname"], b"K")
    return long + header(name, kind, **fields) + padded(data)


def directory(name: bytes, mode: int = 0o755, **fields: Any) -> bytes:
    return member(name, b"5", mode=mode, **fields)


def symlink(name: bytes, target: bytes, **fields: Any) -> bytes:
    return member(name, b"2", linkname=target, mode=0o777, **fields)


def hard_link(name: bytes, target: bytes, **fields: Any) -> bytes:
    return member(name, b"1", linkname=target, **fields)


def record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    while len(b"%d" % size) + len(key) + len(value) + 3 != size:
        size = len(b"%d" % size) + len(key) + len(value) + 3
    return b"%d %b=%b\n" % (size, key, value)


def pax(records: Iterable[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    return member(b"PaxHeaders/x", kind, b"".join(record(k, v) for k, v in records))


def gnu_long(text: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, size=len(text) + 1, magic=b"ustar  \0") + padded(text + b"\0")


def archive(*members: bytes, end: bytes = bytes(2 * BLOCK)) -> bytes:
    return b"".join(members) + end


class Node(NamedTuple):
    """One file of a tree, for comparing."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    links: frozenset[bytes]


def read_tree(root: Path | bytes, *, times: bool = True, overlay: bool = True) -> dict[bytes, Node]:
    """Everything below `root`. times=False leaves directories' times out; overlay=False leaves overlay's xattrs out."""
    found: dict[bytes, Node] = {}
    names: dict[tuple[int, int], set[bytes]] = {}
    top = os.fsencode(root)

    def visit(path: bytes) -> None:
        for entry in sorted(os.listdir(os.path.join(top, path) if path else top)):
            child = os.path.join(path, entry)
            full = os.path.join(top, child)
            st = os.lstat(full)
            content = b""
            if stat.S_ISREG(st.st_mode):
                content = Path(os.fsdecode(full)).read_bytes()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(full)
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                content = b"%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev))
            xattrs = tuple(
                (n, os.getxattr(full, n, follow_symlinks=False))
                for n in sorted(os.listxattr(full, follow_symlinks=False))
                if overlay or ".overlay." not in n
            )
            is_directory = stat.S_ISDIR(st.st_mode)
            found[child] = Node(
                stat.filemode(st.st_mode)[0],
                stat.S_IMODE(st.st_mode),
                st.st_uid,
                st.st_gid,
                st.st_mtime_ns if times or not is_directory else 0,
                content,
                xattrs,
                frozenset(),
            )
            if is_directory:
                visit(child)
            elif st.st_nlink > 1:
                names.setdefault((st.st_dev, st.st_ino), set()).add(child)

    visit(b"")
    for linked in names.values():
        for path in linked:
            found[path] = found[path]._replace(links=frozenset(linked))
    return found


def contents(tree: Mapping[bytes, Node]) -> dict[bytes, bytes]:
    """Just kind and content by path, for short assertions."""
    return {path: node.kind.encode() + node.content for path, node in tree.items()}
