"""How a monitor starts an engine for a container that shall be restarted, should there be none by then."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from proa.engine.types import RestartPolicy

LOG_NAME = "engine.log"
_NAMES = ("PATH", "HOME", "LANG", "DOCKER_CONFIG")
_PREFIXES = ("PROA_", "XDG_")


def how_to_wake(run: Path, policy: RestartPolicy) -> dict[str, Any] | None:
    """`StartRequest.wake` for a container with this policy; None when nothing shall start an engine for it.

    Only an engine that a command started is started again so: any other belongs to whoever runs it, such as systemd.
    """
    command = _command()
    if policy.name in ("", "no") or "--idle-exit" not in command or not _in_the_first_user_namespace():
        return None
    environment = {k: v for k, v in os.environ.items() if k in _NAMES or k.startswith(_PREFIXES)}
    return {"log": str(run / LOG_NAME), "command": command, "environment": environment}


@functools.cache
def _command() -> list[str]:
    """This engine's own command line."""
    words = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    return [os.fsdecode(word) for word in words]


@functools.cache
def _in_the_first_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", str(2**32 - 1)]
