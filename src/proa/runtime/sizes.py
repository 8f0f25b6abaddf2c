"""Sizes as people write them, by the grammar of go-units' RAMInBytes, which docker and runc read them with."""

from __future__ import annotations

from proa.errors import Invalid

__all__ = ["byte_size"]

_SHIFTS = {"": 0, "b": 0} | {
    unit + tail: 10 * power for power, unit in enumerate("kmgtp", 1) for tail in ("", "b", "ib")
}
_LARGEST = (1 << 63) - 1


def byte_size(text: str) -> int:
    """`512m`, `1.5 GiB`, `1024`: bytes, with units of 1024. Raises Invalid."""
    number = text.rstrip("bBiIkKmMgGtTpP")
    shift = _SHIFTS.get(text[len(number) :].lower())
    whole, _, part = number.removesuffix(" ").partition(".")
    digits = whole + part
    if shift is not None and digits.isascii() and digits.isdigit() and len(text) <= 40:
        size: int = (int(digits) << shift) // 10 ** len(part)
        if size <= _LARGEST:
            return size
    raise Invalid(f"invalid size: '{text[:60]}'", code="bad-size", hint="write 512m or 2g")
