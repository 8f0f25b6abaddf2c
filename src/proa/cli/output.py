"""What commands print: notes, tables that fit the terminal, and rows through a --format."""

from __future__ import annotations

import sys

from proa.cli.terminal import emit, is_terminal, printable, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["emit", "note", "show_rows", "table"]

_MINIMUM = 10  # a cell's width with its padding, as Docker's tables have it
_PADDING = 3
_NARROWEST = 8


def note(text: str) -> None:
    """A line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(printable(text, 2) + "\n")
    sys.stderr.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = 0) -> str:
    """Columns as wide as their widest cell; the widest are shortened when a line exceeds `width` (0: no limit)."""
    lines = [list(header), *[[cell.replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    if width:
        _fit(widths, width)
    text = []
    for line in lines:
        cells = [cell if len(cell) <= w else cell[: w - 1] + "…" for cell, w in zip(line, widths, strict=True)]
        last = len(cells) - 1
        padded = [cell.ljust(max(w + _PADDING, _MINIMUM)) for cell, w in zip(cells[:last], widths, strict=False)]
        text.append("".join([*padded, *cells[last:]]))
    return "\n".join(text) + "\n"


def _fit(widths: list[int], width: int) -> None:
    """Shorten the widest columns until the line fits."""
    while True:
        total = sum(max(w + _PADDING, _MINIMUM) for w in widths[:-1]) + sum(widths[-1:])
        widest = max(range(len(widths)), key=widths.__getitem__)
        if total <= width or widths[widest] <= _NARROWEST:
            return
        second = max([w for i, w in enumerate(widths) if i != widest], default=0)
        widths[widest] = max(_NARROWEST, min(widths[widest] - 1, max(second, widths[widest] - (total - width))))


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str]],
    *,
    template: str = "",
    quiet: str = "",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table, or each through a template, or only one of their fields.

    columns:  (field, heading) of the default table
    template: a Go template, `table …`, `json`, or empty for the default
    quiet:    the field to print alone
    headers:  headings of the other fields that a `table` template may name
    """
    if quiet and not template:
        emit("".join([f"{row[quiet]}\n" for row in rows]))
        return
    if template in ("", "table"):
        limit = size(1)[1] if is_terminal(1) else 0
        header = [heading for _, heading in columns]
        emit(table(header, [[str(row[field]) for field, _ in columns] for row in rows], width=limit))
        return
    from proa.cli.template import render_rows

    emit(render_rows(rows, template, {**(headers or {}), **dict(columns)}))
