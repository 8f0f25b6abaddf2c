"""spec: write an example config.json, to be edited."""

from __future__ import annotations

import json
import os
from typing import Any

from proa.errors import Conflict
from proa.runtime import defaults
from proa.runtime.verbs.options import FLAG, VALUE, Options, Settings

__all__ = ["OPTIONS", "example", "run"]

OPTIONS = {"--bundle": VALUE, "-b": "--bundle", "--rootless": FLAG}


def run(_settings: Settings, options: Options, _words: list[str]) -> int:
    """The verb."""
    path = os.path.join(options.value("bundle") or ".", "config.json")
    text = json.dumps(example(rootless=options.flag("rootless")), indent=2) + "\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Conflict(f"{path} exists already", code="file-exists", subject=path) from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


def example(*, rootless: bool = False) -> dict[str, Any]:
    """A container that runs a shell at this terminal, isolated as proa's own containers are.

    rootless: without what root of a user namespace with one id may not do.
    """
    linux: dict[str, Any] = {
        "namespaces": defaults.namespaces(),
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": defaults.masked_paths(),
        "readonlyPaths": list(defaults.READONLY_PATHS),
    }
    if rootless:
        del linux["resources"]
    mounts = defaults.mounts()
    for mount in mounts if rootless else ():  # there is no group 5
        mount["options"] = [option for option in mount["options"] if not option.startswith("gid=")]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [f"PATH={defaults.DEFAULT_PATH}", "TERM=xterm"],
            "cwd": "/",
            "capabilities": defaults.capabilities(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "proa",
        "mounts": mounts,
        "linux": linux,
    }
