"""The prune commands: remove what nothing uses."""

from __future__ import annotations

import sys

from proa.cli.filters import filters
from proa.cli.humanise import decimal_size
from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["CONTAINERS", "IMAGES", "NETWORKS", "SYSTEM", "VOLUMES"]

COMMON: tuple[Row, ...] = (
    ("filter", "", "list", "filter", 'Provide filter values (e.g. "until=<timestamp>")'),
    ("force", "f", "flag", "", "Do not prompt for confirmation"),
)
ALL_IMAGES: Row = ("all", "a", "flag", "", "Remove all unused images, not just dangling ones")
ALL_VOLUMES: Row = ("all", "a", "flag", "", "Remove all unused volumes, not just anonymous ones")
WITH_VOLUMES: Row = ("volumes", "", "flag", "", "Prune anonymous volumes")


def _agreed(options: Options, warning: str) -> bool:
    if options.flag("force"):
        return True
    sys.stdout.write(f"WARNING! This will remove{warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _prune(caller: Caller, kind: str, options: Options, **fixed: str) -> int:
    """Prune one kind of object, print what went, return the bytes it gave back."""
    asked = filters(options.texts("filter"), **fixed)
    reply: dict[str, Any] = caller.call("POST", f"/{kind}/prune{query(filters=asked)}")
    names = {"containers": "ContainersDeleted", "images": "ImagesDeleted", "networks": "NetworksDeleted"}
    deleted = reply.get(names.get(kind, "VolumesDeleted")) or []
    if deleted:
        lines = []
        for item in deleted:
            lines += [f"{k.lower()}: {v}" for k, v in item.items() if v] if isinstance(item, dict) else [item]
        emit(f"Deleted {kind.capitalize()}:\n" + "\n".join(lines) + "\n\n")
    return int(reply.get("SpaceReclaimed") or 0)


def _command(
    kind: str, warning: Callable[[Options], str], fixed: Callable[[Options], dict[str, str]]
) -> Callable[[Settings, Options, list[str]], int]:
    def act(settings: Settings, options: Options, _: list[str]) -> int:
        filters(options.texts("filter"))  # a bad one is told before the question
        if not _agreed(options, f" {warning(options)}."):
            return 0
        size = _prune(Caller(locate(settings.host)), kind, options, **fixed(options))
        if kind != "networks":
            emit(f"Total reclaimed space: {decimal_size(size, 4)}\n")
        return 0

    return act


def _images_fixed(options: Options) -> dict[str, str]:
    return {"dangling": "false"} if options.flag("all") else {"dangling": "true"}


def _images_warning(options: Options) -> str:
    if options.flag("all"):
        return "all images without at least one container associated to them"
    return "all dangling images"


def _system(settings: Settings, options: Options, _: list[str]) -> int:
    if options.flag("volumes") and any(text.startswith("until=") for text in options.texts("filter")):
        raise Invalid('The "until" filter is not supported with "--volumes"', code="bad-filter")
    filters(options.texts("filter"))
    what = ["all stopped containers", "all networks not used by at least one container"]
    if options.flag("volumes"):
        what.append("all anonymous volumes not used by at least one container")
    what += [_images_warning(options), "all build cache" if options.flag("all") else "unused build cache"]
    listed = "".join([f"\n  - {line}" for line in what])
    given = "".join([f"\n  - {text}" for text in sorted(options.texts("filter"))])
    given = f"\n\n  Items to be pruned will be filtered with:{given}" if given else ""
    if not _agreed(options, f":{listed}{given}\n"):
        return 0
    caller = Caller(locate(settings.host))
    size = _prune(caller, "containers", options)
    _prune(caller, "networks", options)
    if options.flag("volumes"):
        size += _prune(caller, "volumes", options)
    size += _prune(caller, "images", options, **_images_fixed(options))
    emit(f"Total reclaimed space: {decimal_size(size, 4)}\n")
    return 0


CONTAINERS = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    COMMON,
    _command("containers", lambda _: "all stopped containers", lambda _: {}),
    most=0,
)
IMAGES = Command(
    "[OPTIONS]",
    "Remove unused images",
    (ALL_IMAGES, *COMMON),
    _command("images", _images_warning, _images_fixed),
    most=0,
)
NETWORKS = Command(
    "[OPTIONS]",
    "Remove all unused networks",
    COMMON,
    _command("networks", lambda _: "all custom networks not used by at least one container", lambda _: {}),
    most=0,
)
VOLUMES = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    (ALL_VOLUMES, *COMMON),
    _command(
        "volumes",
        lambda options: (
            f"{'all' if options.flag('all') else 'anonymous'} local volumes not used by at least one container"
        ),
        lambda options: {"all": "true"} if options.flag("all") else {},
    ),
    most=0,
)
SYSTEM = Command("[OPTIONS]", "Remove unused data", (ALL_IMAGES, *COMMON, WITH_VOLUMES), _system, most=0)
