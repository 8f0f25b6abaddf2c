"""The streaming tar reader: an iterator of bytes in, entries and their data out.

It reads forward only, keeps one chunk, verifies every checksum and enforces a Budget. What follows the end marker (two
zero blocks) is not an archive any more: it is read to the end, so that the stream's digest is whole, and ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

from proa.errors import Corrupt, Exhausted, Invalid, ProaError
from proa.storage.layers import headers, pax, sparse
from proa.storage.layers.budget import DEFAULT_BUDGET, Budget
from proa.storage.layers.headers import BLOCK, ZERO_BLOCK, Entry
from proa.storage.layers.names import display

__all__ = ["TarReader"]

_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _OLD_SPARSE = "L", "K", "x", "g", "S"
_EXTENSIONS_PER_ENTRY = 16
_MAX_ID = 0xFFFFFFFE  # -1 means "leave it" to chown(2)


class TarReader:
    """Iterate over the entries of an archive; between two, read the current one's data by `data`, or let it be skipped.

    `chunks` yields non-empty bytes of any length, each valid until the next is asked for, and raises ProaError for a
    broken stream. Raises Corrupt (truncated,
    bad checksum, malformed), Invalid (values out of range), Exhausted (budget).
    """

    def __init__(self, chunks: Iterator[bytes | memoryview], budget: Budget = DEFAULT_BUDGET) -> None:
        self._chunks = chunks
        self._budget = budget
        self._view = memoryview(b"")
        self._position = 0
        self._unread = 0  # bytes of the current entry's data not yet taken
        self._padding = 0
        self._globals: pax.Records = []
        self._started = 0  # bytes of the chunks before the current one
        self.entries = 0

    @property
    def offset(self) -> int:
        """Bytes of the archive consumed so far."""
        return self._started + self._position

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """The next entry, or None at the end of the archive."""
        if self._unread or self._padding:
            self._skip_rest()
        try:
            entry = self._next()
        except ProaError as error:
            error.fields.setdefault("offset", self.offset)
            raise
        if entry is None:
            return None
        self.entries += 1
        if self.entries > self._budget.entries:
            self._budget.exceeded("entries", "entries")
        self._unread = entry.stored
        self._padding = -entry.stored % BLOCK
        return entry

    def data(self) -> Iterator[memoryview]:
        """The current entry's stored bytes, in pieces that are valid until the next call on the reader."""
        while self._unread:
            if self._position >= len(self._view) and not self._fill():
                raise Corrupt("archive is truncated within a file", code="tar-truncated", offset=self.offset)
            piece = self._view[self._position : self._position + self._unread]
            self._position += len(piece)
            self._unread -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read the stream to its end, ignoring what is there."""
        self._position = len(self._view)
        self._unread = self._padding = 0
        while self._fill():
            self._position = len(self._view)

    def _fill(self) -> bool:
        """Replace the used-up chunk by the next; False at the end of the stream."""
        self._started += len(self._view)
        self._position = 0
        self._view = memoryview(next(self._chunks, b""))
        if self._started + len(self._view) > self._budget.unpacked_bytes:
            self._budget.exceeded("unpacked_bytes", "unpacked bytes")
        return len(self._view) > 0

    def _take(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end of the stream."""
        end = self._position + count
        if end <= len(self._view):
            piece = bytes(self._view[self._position : end])
            self._position = end
            return piece
        parts = [bytes(self._view[self._position :])]
        missing = count - len(parts[0])
        self._position = len(self._view)
        while missing and self._fill():
            part = bytes(self._view[:missing])
            self._position = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _skip_rest(self) -> None:
        position = self._position + self._unread + self._padding
        if position <= len(self._view):
            self._position = position
            self._unread = 0
        else:
            for _ in self.data():
                pass
            # Some writers leave out the last padding; the end of the stream is found by the next read.
            self._take(self._padding)
        self._padding = 0

    def _block(self) -> bytes:
        block = self._take(BLOCK)
        if len(block) < BLOCK:
            raise Corrupt("archive is truncated within a header", code="tar-truncated")
        return block

    def _next(self) -> Entry | None:
        long_name = long_link = b""
        records: pax.Records = []
        size = extensions = 0
        while True:
            block = self._take(BLOCK)
            if not block:
                if extensions:
                    raise Corrupt("archive is truncated after an extended header", code="tar-truncated")
                return None
            if len(block) < BLOCK:
                raise Corrupt("archive is truncated within a header", code="tar-truncated")
            if block == ZERO_BLOCK:
                self._end(extensions)
                return None
            entry = headers.parse(block)
            kind = entry.kind
            if kind not in headers.EXTENSIONS:
                break
            extensions += 1
            size += entry.size
            if extensions > _EXTENSIONS_PER_ENTRY:
                text = f"layer refused: more than {_EXTENSIONS_PER_ENTRY} extended headers for one entry"
                raise Exhausted(text, code="layer-budget")
            if size > self._budget.header_bytes:
                self._budget.exceeded("header_bytes", "bytes of extended headers for one entry")
            data = self._extension(entry.size)
            if kind == _PAX:
                records = pax.parse_records(data)
            elif kind == _LONG_NAME:
                long_name = data.partition(b"\0")[0]
            elif kind == _LONG_LINK:
                long_link = data.partition(b"\0")[0]
            else:
                globals_ = pax.parse_records(data)
                pax.refuse_global(globals_)
                self._globals = globals_
        return self._complete(entry, block, records, long_name, long_link)

    def _end(self, extensions: int) -> None:
        """One zero block was read: another, or the end of the stream, ends the archive."""
        if extensions:
            raise Corrupt("archive ends after an extended header", code="tar-truncated")
        block = self._take(BLOCK)
        if block and block != ZERO_BLOCK[: len(block)]:
            raise Corrupt("archive has a lone zero block between entries", code="tar-header")
        self.drain()

    def _extension(self, size: int) -> bytes:
        data = self._take(size + -size % BLOCK)
        if len(data) < size:
            raise Corrupt("archive is truncated within an extended header", code="tar-truncated")
        return data[:size]

    def _complete(self, entry: Entry, block: bytes, records: pax.Records, long_name: bytes, long_link: bytes) -> Entry:
        if self._globals:
            pax.amend(entry, self._globals)
        if records:
            pax.amend(entry, records)
        if long_name:
            entry.name = long_name
        if long_link and entry.kind in "12":
            entry.linkname = long_link
        if entry.kind == "\0":
            # Before POSIX a directory was a file whose name ends in a slash.
            entry.kind = "5" if entry.name.endswith(b"/") else "0"
        if entry.kind == "5":
            entry.size = entry.stored = 0
        elif entry.kind == _OLD_SPARSE:
            sparse.read_old_gnu(entry, block, self._block, self._budget)
        elif records:
            sparse.apply_pax(entry, records, self._block, self._budget)
        budget = self._budget
        if len(entry.name) > budget.name_bytes or len(entry.linkname) > budget.name_bytes:
            budget.exceeded("name_bytes", "bytes in a path", display(entry.name))
        if entry.size > budget.file_bytes:
            budget.exceeded("file_bytes", "bytes in a file", display(entry.name))
        if entry.stored > budget.unpacked_bytes:
            budget.exceeded("unpacked_bytes", "unpacked bytes", display(entry.name))
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise Invalid(
                f"{display(entry.name)!r} has an impossible owner {entry.uid}:{entry.gid}",
                code="tar-number",
                subject=display(entry.name),
            )
        return entry
