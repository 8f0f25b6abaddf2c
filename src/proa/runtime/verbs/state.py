"""state: print the state document of a container (runtime-spec runtime.md, Query State)."""

from __future__ import annotations

import sys

from proa.errors import Invalid
from proa.runtime.verbs import documents, records
from proa.runtime.verbs.options import Options, Settings

__all__ = ["OPTIONS", "run"]

OPTIONS: dict[str, str] = {}


def run(settings: Settings, _options: Options, words: list[str]) -> int:
    """The verb."""
    if len(words) != 1:
        raise Invalid("one container id is needed", code="usage")
    directory, record = records.load(settings.root, words[0])
    state = records.state_of(record, records.status_of(directory, record))
    sys.stdout.write(documents.encode(state) + "\n")
    return 0
