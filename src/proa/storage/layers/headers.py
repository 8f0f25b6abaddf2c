"""One 512-byte tar header block: numbers, checksum, and the entry it describes.

Formats: POSIX.1-1988 ustar, GNU tar (base-256 numbers, old sparse maps), star, and V7. Source: POSIX pax "ustar
Interchange Format", GNU tar manual "Basic Tar Format".
"""

from __future__ import annotations

import struct
from zlib import adler32

from proa.errors import Corrupt, Invalid
from proa.storage.layers.names import display

__all__ = [
    "BLOCK",
    "EXTENSIONS",
    "MAX_INTEGER",
    "ZERO_BLOCK",
    "Entry",
    "checksum_matches",
    "number",
    "parse",
]

BLOCK = 512
# Kinds that say something about the next entry: GNU long name and link, PAX local and global.
EXTENSIONS = "LKxg"
ZERO_BLOCK = bytes(BLOCK)
MAX_INTEGER = 1 << 53

# name mode uid gid size mtime checksum typeflag linkname magic+version uname gname devmajor devminor prefix
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
assert _FIELDS.size == BLOCK

_USTAR = b"ustar\x0000"
_USTAR_MAGIC = b"ustar\0"
_GNU_MAGIC = b"ustar  \0"
_OCTAL = b"01234567"
_HEADER_ONLY = frozenset(b"123456")


class Entry:
    """One archive member, as told by its header and extensions; all text is bytes.

    kind:     the type flag, "0" for every regular file once the reader is done with it.
    size:     bytes of the file, holes included; `stored`: bytes of it in the archive.
    segments: (offset, length) of the stored data in a sparse file, else None.
    mtime_ns: nanoseconds since the epoch.
    """

    __slots__ = (
        "gid",
        "kind",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "segments",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.name = b""
        self.linkname = b""
        self.kind = "0"
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.stored = 0
        self.mtime_ns = 0
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] | None = None
        self.segments: list[tuple[int, int]] | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {display(self.name)!r} {self.size}>"


def number(field: bytes, what: str) -> int:
    """A numeric header field: octal digits among NULs and blanks, or GNU base-256. Raises Corrupt, Invalid."""
    digits = field[:-1]
    # The form nearly all fields have: digits and one terminator. (int() alone would take signs and underscores.)
    if digits.isdigit() and field[-1] in b" \0":
        try:
            return int(digits, 8)
        except ValueError:
            pass
    if field[0] & 0x80:
        # Two's complement of all bits but the highest, big-endian.
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise Invalid(f"tar header: {what} is out of range", code="tar-number")
        return value
    digits = field.strip(b" \0")
    if b"\0" in digits:
        digits = digits[: digits.index(b"\0")].rstrip(b" ")
    if not digits:
        return 0
    if digits.translate(None, _OCTAL):
        raise Corrupt(f"tar header: {what} is not an octal number", code="tar-header")
    return int(digits, 8)


_seen: dict[bytes, int] = {}


def _often(field: bytes, what: str) -> int:
    """As `number`, for fields that have few different values in one archive."""
    value = _seen.get(field)
    if value is None:
        value = number(field, what)
        if len(_seen) < 1024:
            _seen[field] = value
    return value


def checksum_matches(block: bytes, field: bytes) -> bool:
    """Whether the header's bytes add up to its checksum field, taken as unsigned or (old Suns) signed."""
    # adler32's low half is 1 + the sum modulo 65521, which 256 bytes cannot reach: an exact sum at C speed. The
    # checksum field itself counts as eight blanks.
    unsigned = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - (adler32(field) & 0xFFFF) + 255
    if field[:6] == b"%06o" % unsigned and field[6] in b" \0":
        return True
    try:
        stated = number(field, "checksum")
    except (Corrupt, Invalid):
        return False
    return stated in (unsigned, sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:]))


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def parse(block: bytes) -> Entry:
    """The entry of a header block that is not all zeros.

    Of one of the EXTENSIONS only kind and size are told; what they say, and sparse maps, are the reader's business.
    Raises Corrupt for a wrong checksum or a malformed number, Invalid for a value out of range.
    """
    (
        name,
        mode,
        uid,
        gid,
        size,
        mtime,
        check,
        flag,
        linkname,
        magic,
        _uname,
        _gname,
        major,
        minor,
        prefix,
        tail,
    ) = _FIELDS.unpack(block)
    if not checksum_matches(block, check):
        raise Corrupt("tar header: checksum does not match", code="tar-header")
    kind = flag.decode("latin-1")
    entry = Entry()
    entry.size = number(size, "size")
    if entry.size < 0:
        raise Invalid(f"tar header: the size of {display(_text(name))!r} is negative", code="tar-number")
    if kind in EXTENSIONS:
        entry.kind = kind
        return entry
    entry.name = _text(name)
    if magic[:6] == _USTAR_MAGIC and prefix[0]:
        # star keeps times at the end of the prefix and says so in the last four bytes.
        entry.name = _text(prefix[:131] if tail[8:] == b"tar\0" else prefix) + b"/" + entry.name
    entry.mode = _often(mode, "mode") & 0o7777
    entry.uid = _often(uid, "uid")
    entry.gid = _often(gid, "gid")
    entry.mtime_ns = number(mtime, "mtime") * 1_000_000_000
    entry.kind = "0" if kind == "7" else kind
    if kind in ("1", "2"):
        entry.linkname = _text(linkname)
    elif kind in ("3", "4"):
        entry.major = number(major, "device number")
        entry.minor = number(minor, "device number")
    # Links, devices, directories and fifos have no data whatever their size field says (as in Go's and GNU's readers).
    if flag[0] in _HEADER_ONLY:
        entry.size = 0
    entry.stored = entry.size
    return entry
