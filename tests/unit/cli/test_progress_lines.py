from __future__ import annotations

import os
import pty
from collections.abc import Callable
from typing import Any

import pytest

from proa.cli.progress import show_progress
from proa.errors import NotFound

RECORDS: list[dict[str, Any]] = [
    {"status": "Pulling from x", "id": "1"},
    {"status": "Pulling fs layer", "id": "aaa", "progressDetail": {}},
    {"status": "Downloading", "id": "aaa", "progressDetail": {"current": 5, "total": 10}},
    {"status": "Downloading", "id": "aaa", "progressDetail": {"current": 9, "total": 10}},
    {"status": "Pull complete", "id": "aaa", "progressDetail": {}},
    {"status": "Digest: sha256:x"},
    {"progressDetail": {}, "aux": {"Digest": "sha256:y"}},
]


def shown(make: Callable[[], tuple[int, int]], records: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    out, into = make()
    try:
        try:
            aux = show_progress(iter(records), into)
        finally:
            os.close(into)
        return "".join(iter(lambda: piece(out), "")), aux
    finally:
        os.close(out)


def piece(out: int) -> str:
    """Some of what was written, empty at the end: a pseudo-terminal gives what it has in several reads, then EIO."""
    try:
        return os.read(out, 65536).decode()
    except OSError:
        return ""


def test_a_pipe_gets_a_line_for_each_change() -> None:
    text, aux = shown(os.pipe, RECORDS)
    assert text == "1: Pulling from x\naaa: Pulling fs layer\naaa: Pull complete\nDigest: sha256:x\n"
    assert aux == {"Digest": "sha256:y"}


def test_a_terminal_gets_rows_that_are_redrawn() -> None:
    text, _ = shown(pty.openpty, RECORDS)
    assert "aaa: Downloading [====" in text
    assert "\x1b[1A\r\x1b[2Kaaa: Pull complete" in text
    assert text.endswith("Digest: sha256:x\r\n")


def test_a_reported_failure_is_raised() -> None:
    record = {"errorDetail": {"message": "no such tag", "status": 404, "code": "tag-unknown"}, "error": "no such tag"}
    with pytest.raises(NotFound, match="no such tag") as failure:
        shown(os.pipe, [{"status": "x"}, record])
    assert failure.value.code == "tag-unknown"
