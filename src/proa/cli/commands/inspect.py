"""`proa inspect`, and `container|image|network|volume inspect`."""

from __future__ import annotations

from proa.cli.failures import complain
from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.errors import Invalid, NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["CONTAINER", "IMAGE", "INSPECT", "NETWORK", "VOLUME"]

FORMAT: Row = ("format", "f", "text", "string", "Format output: json, or a Go template")
SIZE: Row = ("size", "s", "flag", "", "Display total file sizes if the type is container")
REMOTE: Row = ("remote", "", "flag", "", "Look at the images in their registries, without pulling them")
RAW: Row = ("raw", "", "flag", "", "With --remote: write the manifest or index as it is")
PLATFORM: Row = ("platform", "", "text", "string", "Inspect a specific platform of a multi-platform image")
TYPE: Row = ("type", "", "text", "string", "Only inspect objects of the given type")

PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def _find(caller: Caller, name: str, kinds: tuple[str, ...], *, size: bool, platform: str) -> Any:
    for kind in kinds:
        tail = query(size=size and kind == "container", platform=platform if kind == "image" else "")
        try:
            return caller.call("GET", PATHS[kind].format(quote(name)) + tail)
        except NotFound:
            if len(kinds) == 1:
                raise
        except Invalid:
            if kind == kinds[-1] or len(kinds) == 1:  # not a name of this kind; perhaps of the next
                raise
    raise NotFound(f"No such object: {name}", code="no-such-object", subject=name)


def _act_on(*kinds: str) -> Callable[[Settings, Options, list[str]], int]:
    def act(settings: Settings, options: Options, words: list[str]) -> int:
        wanted = kinds
        if len(kinds) > 1 and options.given("type"):
            wanted = (options.text("type"),)
            if wanted[0] not in PATHS:
                raise Invalid(
                    f"`{wanted[0]}` is not a type to inspect", code="bad-type", hint=f"use {', '.join(PATHS)}"
                )
        caller = Caller(locate(settings.host))
        platform = options.text("platform") if kinds == ("image",) else ""
        remote = kinds == ("image",) and options.flag("remote")
        if remote:
            from proa.cli.commands.registry import inspect_remote, show_raw

            if options.flag("raw"):
                return show_raw(caller, words)
        found, status = [], 0
        for name in words:
            try:
                if remote:
                    found.append(inspect_remote(caller, name, platform))
                    continue
                found.append(
                    _find(caller, name, wanted, size=len(kinds) > 1 and options.flag("size"), platform=platform)
                )
            except ProaError as error:
                complain(error.message, error.hint)
                status = 1
        _show(found, options.text("format"))
        return status

    return act


def _show(found: list[Any], template: str) -> None:
    if template and template != "json":
        from proa.cli.template import Template

        compiled = Template(template)
        for value in found:
            emit(compiled.render(value) + "\n")
        return
    import json

    indent = None if template == "json" else 4
    emit(json.dumps(found, indent=indent, ensure_ascii=False) + "\n")


INSPECT = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers, images, networks and volumes",
    (FORMAT, SIZE, TYPE),
    _act_on("container", "image", "network", "volume"),
    least=1,
)
CONTAINER = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    (FORMAT,),
    _act_on("container"),
    least=1,
)
IMAGE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    (FORMAT, PLATFORM, RAW, REMOTE),
    _act_on("image"),
    least=1,
)
NETWORK = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    (FORMAT,),
    _act_on("network"),
    least=1,
)
VOLUME = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    (FORMAT,),
    _act_on("volume"),
    least=1,
)
