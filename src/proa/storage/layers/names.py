"""Paths inside archives: raw bytes, made canonical, and shown safely."""

from __future__ import annotations

from proa.errors import Invalid

__all__ = ["canonical", "display", "split"]

_DISPLAY_LIMIT = 240


def display(name: bytes) -> str:
    """`name` for messages: one line of printable characters, odd bytes escaped, cut to a sane length.

    Controls, what reorders or hides text, and blanks other than the one: a name must not steer a terminal or forge a
    log line.
    """
    text = name[: _DISPLAY_LIMIT + 4].decode("utf-8", "backslashreplace")
    text = "".join([c if c.isprintable() else f"\\u{ord(c):04x}" for c in text])
    return text if len(text) <= _DISPLAY_LIMIT else text[:_DISPLAY_LIMIT] + "…"


def canonical(name: bytes) -> bytes:
    """An archive path relative to the layer's root without `.`, `..` or empty parts; b"" is the root itself.

    Absolute paths start at the root, as in every engine. `..` is resolved by the letter. Raises Invalid when it would
    leave the root, or when the name has a NUL byte.
    """
    if name.startswith(b"./"):
        name = name[2:]
    # Nearly all names need no more than that.
    if not (b"/." in name or b"//" in name or b"\0" in name or name.startswith((b"/", b"."))):
        return name[:-1] if name.endswith(b"/") else name
    if b"\0" in name:
        raise Invalid(f"archive path {display(name)!r} contains a NUL byte", code="layer-path", subject=display(name))
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise Invalid(
                f"archive path {display(name)!r} leaves the layer's root", code="layer-path", subject=display(name)
            )
    return b"/".join(parts)


def split(path: bytes) -> tuple[bytes, bytes]:
    """A canonical path as (parent, last part); the parent of a top-level name is b""."""
    parent, _, base = path.rpartition(b"/")
    return parent, base
