"""Say which kind of error must come, and look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from proa.errors import ProaError

E = TypeVar("E", bound=ProaError)


class Expected(Generic[E]):
    """Holds the error after the block."""

    def __init__(self) -> None:
        self._error: E | None = None

    @property
    def error(self) -> E:
        """What was raised."""
        assert self._error is not None
        return self._error

    def hold(self, error: E) -> None:
        """Keep it."""
        self._error = error


@contextmanager
def expect(kind: type[E], code: str = "") -> Iterator[Expected[E]]:
    """Fail unless the block raises exactly a `kind`, with that `code` when one is given."""
    out: Expected[E] = Expected()
    try:
        yield out
    except kind as e:
        if code and e.code != code:
            raise AssertionError(f"expected {kind.__name__} {code!r}, got {e.code!r}: {e}") from e
        out.hold(e)
    else:
        raise AssertionError(f"expected {kind.__name__}, nothing was raised")
