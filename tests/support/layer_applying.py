"""Apply an archive in the test's own process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proa.storage.layers.apply import Applied, apply


def applied(data: bytes, target: Path, lowers: Sequence[Path] = (), **options: Any) -> Applied:
    """Apply `data` to `target` on top of `lowers`, uppermost first, by default as any user can."""
    target.mkdir(exist_ok=True)
    fds = [os.open(p, os.O_RDONLY | os.O_DIRECTORY) for p in (target, *lowers)]
    options.setdefault("prefix", "user.overlay.")
    options.setdefault("keep_owner", False)
    try:
        return apply(iter([data] if data else []), fds[0], fds[1:], **options)
    finally:
        for fd in fds:
            os.close(fd)
