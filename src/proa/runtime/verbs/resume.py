"""resume: let a paused container go on."""

from __future__ import annotations

from proa.runtime.verbs.options import Options, Settings
from proa.runtime.verbs.pause import cgroup_of

__all__ = ["OPTIONS", "run"]

OPTIONS: dict[str, str] = {}


def run(settings: Settings, _options: Options, words: list[str]) -> int:
    """The verb."""
    cgroup_of(settings, words, ("paused",), "resumed").thaw()
    return 0
