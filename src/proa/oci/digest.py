"""Digests: `algorithm:hex` of exact bytes (image-spec descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from proa.errors import Corrupt, Invalid

Digest = NewType("Digest", str)

# Lower-case hex only, and ASCII only: Python's `$` and `\d` accept more than the specification does.
_SHAPES = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}


def parse_digest(text: str) -> Digest:
    """Check `text` and return it as a Digest. Raises Invalid."""
    algorithm, _, encoded = text.partition(":")
    shape = _SHAPES.get(algorithm)
    if shape is None or shape.fullmatch(encoded) is None:
        raise Invalid(f"invalid digest {text[:160]!r}: want sha256:<64 lower-case hex digits>", code="digest-invalid")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_hex(digest: Digest) -> str:
    """The part after the colon."""
    return digest.partition(":")[2]


def digest_algorithm(digest: Digest) -> str:
    """The part before the colon, a name hashlib knows."""
    return digest.partition(":")[0]


class Verifier:
    """Hash a stream and compare with what was promised.

    update() may be called from any one thread at a time; finish() raises Corrupt when the size or digest differ.
    """

    def __init__(self, digest: Digest | None = None, size: int | None = None) -> None:
        self.expected = digest
        self.expected_size = size
        self.size = 0
        self._algorithm = digest_algorithm(digest) if digest else "sha256"
        self._hash = hashlib.new(self._algorithm)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes. Raises Corrupt as soon as there are more than promised."""
        self.size += len(data)
        if self.expected_size is not None and self.size > self.expected_size:
            raise Corrupt(
                f"content {self.expected or ''} is longer than its {self.expected_size} bytes", code="size-mismatch"
            )
        self._hash.update(data)

    @property
    def digest(self) -> Digest:
        """The digest of the bytes so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def finish(self) -> Digest:
        """Compare and return the digest. Raises Corrupt."""
        if self.expected_size is not None and self.size != self.expected_size:
            raise Corrupt(
                f"content {self.expected or ''} has {self.size} bytes, {self.expected_size} were promised",
                code="size-mismatch",
            )
        found = self.digest
        if self.expected is not None and found != self.expected:
            raise Corrupt(
                f"content does not match its digest: got {found}, want {self.expected}", code="digest-mismatch"
            )
        return found
