"""`proa commit`."""

from __future__ import annotations

import os

from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.client.names import split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["COMMIT"]

ROWS: tuple[Row, ...] = (
    ("author", "a", "text", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
    ("change", "c", "list", "list", "Apply Dockerfile instruction to the created image"),
    ("compression", "", "text", "string", "Compress the new layer: gzip or zstd, and a level if you like (zstd:9)"),
    ("message", "m", "text", "string", "Commit message"),
    ("pause", "p", "flag", "", "Pause container during commit (default true)"),
)


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    repository, tag = split_tag(words[1]) if len(words) > 1 else ("", "")
    target = query(
        container=words[0],
        repo=repository,
        tag=tag,
        comment=options.text("message"),
        author=options.text("author"),
        pause="1" if options.flag("pause", default=True) else "0",
        compression=options.text("compression"),
        sourceDateEpoch=os.environ.get("SOURCE_DATE_EPOCH"),
    )
    changes = "".join([f"&changes={quote(change)}" for change in options.texts("change")])
    reply = Caller(locate(settings.host)).call("POST", f"/commit{target}{changes}", {})
    emit(f"{reply['Id']}\n")
    return 0


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    ROWS,
    _act,
    least=1,
    most=2,
)
