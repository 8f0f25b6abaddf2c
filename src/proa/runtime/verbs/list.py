"""list: the containers of this root."""

from __future__ import annotations

import sys

from proa.errors import Conflict, Corrupt, Invalid, NotFound
from proa.runtime.verbs import documents, records
from proa.runtime.verbs.options import FLAG, VALUE, Options, Settings

__all__ = ["OPTIONS", "run"]

OPTIONS = {"--format": VALUE, "-f": "--format", "--quiet": FLAG, "-q": "--quiet"}
_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def run(settings: Settings, options: Options, _words: list[str]) -> int:
    """The verb."""
    form = options.value("format", "table")
    if form not in ("table", "json"):
        raise Invalid(f"unknown format `{form}`, there are table and json", code="usage")
    states = []
    for name in records.ids(settings.root):
        try:
            directory, record = records.load(settings.root, name)
            states.append(records.state_of(record, records.status_of(directory, record)))
        except (NotFound, Conflict, Corrupt):
            continue  # being created or removed just now
    if options.flag("quiet"):
        lines = [state["id"] for state in states]
    elif form == "json":
        lines = [documents.encode(states)]
    else:
        rows = [[column.upper() for column in _COLUMNS], *([str(state[c]) for c in _COLUMNS] for state in states)]
        widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(_COLUMNS))]
        lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0
