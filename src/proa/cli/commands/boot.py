"""`proa boot` and `proa system unit`: what makes containers come back after the machine's boot."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.output import emit, note
from proa.client.caller import Caller
from proa.client.endpoint import data_root, locate, run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["BOOT", "UNIT"]

# KillMode: only the engine ends when the service does, containers run on. Restart: a killed engine comes back, and
# with it what restarts containers and runs their healthchecks.
_UNIT = """\
[Unit]
Description=proa container engine
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target local-fs.target

[Service]
Type=notify
NotifyAccess=main
Environment={environment}
ExecStart={command}
KillMode=process
Restart=on-failure
RestartSec=1
TimeoutStopSec=30
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def _boot(settings: Settings, _: Options, __: list[str]) -> int:
    failed = 0
    for container in Caller(locate(settings.host)).call("POST", "/proa/v1/boot"):
        if container["Status"] == "running":
            emit(f"{container['Name']}\n")
        else:
            failed += 1
            note(f"{container['Name']} is {container['Status']}: {container['Error'] or 'it ended again'}")
    return 1 if failed else 0


def _unit(_: Settings, __: Options, ___: list[str]) -> int:
    import os
    import sys

    program = os.path.abspath(os.path.join(os.path.dirname(sys.executable), "proa"))
    words = [program] if os.access(program, os.X_OK) else [sys.executable, "-m", "proa"]
    command = " ".join(_quoted(word).replace("$", "$$") for word in [*words, "system", "service"])
    places = {"PROA_ROOT": os.path.abspath(data_root()), "PROA_RUN": os.path.abspath(run_dir())}
    emit(_UNIT.format(command=command, environment=" ".join(_quoted(f"{k}={v}") for k, v in places.items())))
    return 0


def _quoted(word: str) -> str:
    """The word as systemd.syntax(7) reads it back."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != word or " " in word else word


BOOT = Command("", "Start the engine and every container that shall run after a boot", (), _boot, most=0)
UNIT = Command("", "Print a systemd unit that runs the engine from the machine's boot on", (), _unit, most=0)
