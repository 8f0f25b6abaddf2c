"""`proa logs`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.session import put
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.frames import STDERR, Demultiplexer
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["LOGS"]

ROWS: tuple[Row, ...] = (
    ("details", "", "flag", "", "Show extra details provided to logs"),
    ("follow", "f", "flag", "", "Follow log output"),
    ("since", "", "text", "string", 'Show logs since timestamp (e.g. "2026-01-02T13:23:37Z") or relative ("42m")'),
    ("tail", "n", "text", "string", 'Number of lines to show from the end of the logs (default "all")'),
    ("timestamps", "t", "flag", "", "Show timestamps"),
    ("until", "", "text", "string", 'Show logs before a timestamp (e.g. "2026-01-02T13:23:37Z") or relative ("42m")'),
)


def _act(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.moments import moment

    caller = Caller(locate(settings.host))
    path = f"/containers/{quote(words[0])}"
    container = caller.call("GET", f"{path}/json")
    target = query(
        stdout=True,
        stderr=True,
        follow=options.flag("follow"),
        details=options.flag("details"),
        timestamps=options.flag("timestamps"),
        tail=options.text("tail", "all"),
        since=moment(options.text("since"), "since"),
        until=moment(options.text("until"), "until"),
    )
    connection = caller.open("GET", f"{path}/logs{target}")
    if container["Config"]["Tty"]:
        while data := connection.read():
            put(1, data)
        return 0
    demultiplexer = Demultiplexer()
    while data := connection.read():
        for stream, piece in demultiplexer.feed(data):
            put(2 if stream >= STDERR else 1, piece)
    return 0


LOGS = Command("[OPTIONS] CONTAINER", "Fetch the logs of a container", ROWS, _act, least=1, most=1)
