"""`proa manifest create|add|annotate|remove|inspect|push|rm`: indexes made here, of images for several platforms."""

from __future__ import annotations

from proa.cli.many import for_each
from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["ADD", "ANNOTATE", "CREATE", "INSPECT", "PUSH", "REMOVE", "RM"]

ANNOTATION: Row = ("annotation", "", "list", "key=value", "Set an annotation")
CREATE_ROWS: tuple[Row, ...] = (
    ("amend", "a", "flag", "", "Add to the list if there is one of that name"),
    ANNOTATION,
)
ANNOTATE_ROWS: tuple[Row, ...] = (
    ANNOTATION,
    ("arch", "", "text", "string", "Set architecture"),
    ("os", "", "text", "string", "Set operating system"),
    ("os-features", "", "list", "list", "Set operating system feature"),
    ("os-version", "", "text", "string", "Set operating system version"),
    ("variant", "", "text", "string", "Set architecture variant"),
)
PUSH_ROWS: tuple[Row, ...] = (
    ("purge", "p", "flag", "", "Remove the local manifest list after push"),
    ("quiet", "q", "flag", "", "Suppress verbose output"),
)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, mark, value = text.partition("=")
        if not (mark and key):
            raise Invalid(f"invalid annotation `{text}`", code="bad-annotation", hint="write key=value")
        pairs[key] = value
    return pairs


def _post(settings: Settings, name: str, what: str, document: dict[str, Any], images: list[str]) -> str:
    from proa.cli.commands.registry import auth_of

    caller = Caller(locate(settings.host))
    headers = (auth_of(caller, images[0]),) if images else ()
    reply = caller.call("POST", f"/proa/v1/manifests/{quote(name)}{what}", document, headers=headers)
    return str(reply["Id"])


def _create(settings: Settings, options: Options, words: list[str]) -> int:
    document = {
        "Images": words[1:],
        "Amend": options.flag("amend"),
        "Annotations": _pairs(options.texts("annotation")),
    }
    _post(settings, words[0], "", document, words[1:])
    emit(f"Created manifest list {words[0]}\n")
    return 0


def _add(settings: Settings, _: Options, words: list[str]) -> int:
    emit(_post(settings, words[0], "/add", {"Images": words[1:]}, words[1:]) + "\n")
    return 0


def _annotate(settings: Settings, options: Options, words: list[str]) -> int:
    document = {
        "Image": words[1],
        "Os": options.text("os"),
        "Architecture": options.text("arch"),
        "Variant": options.text("variant"),
        "OsVersion": options.text("os-version"),
        "OsFeatures": [part for text in options.texts("os-features") for part in text.split(",")],
        "Annotations": _pairs(options.texts("annotation")),
    }
    _post(settings, words[0], "/annotate", document, [])
    return 0


def _remove(settings: Settings, _: Options, words: list[str]) -> int:
    emit(_post(settings, words[0], "/remove", {"Image": words[1]}, []) + "\n")
    return 0


def _inspect(settings: Settings, _: Options, words: list[str]) -> int:
    import json

    caller = Caller(locate(settings.host))
    try:
        raw = caller.fetch("GET", f"/proa/v1/manifests/{quote(words[0])}")
    except (NotFound, Invalid):
        from proa.cli.commands.registry import auth_of

        target = f"/proa/v1/registry/image{query(name=words[0], raw=True)}"
        raw = caller.fetch("GET", target, headers=(auth_of(caller, words[0]),))
    emit(json.dumps(json.loads(raw), indent=3) + "\n")
    return 0


def _push(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.commands.registry import auth_of
    from proa.cli.progress import show_progress
    from proa.client.caller import json_lines

    caller = Caller(locate(settings.host))
    tail = query(to=words[1] if len(words) > 1 else None, purge=options.flag("purge"))
    target = f"/proa/v1/manifests/{quote(words[0])}/push{tail}"
    connection = caller.open("POST", target, headers=(auth_of(caller, words[-1]),))
    aux = show_progress(json_lines(connection), 2, quiet=options.flag("quiet"))
    emit(f"{aux.get('Digest', '')}\n")
    return 0


def _rm(settings: Settings, _: Options, words: list[str]) -> int:
    return for_each(settings, words, lambda name: ("DELETE", f"/proa/v1/manifests/{quote(name)}"))


CREATE = Command(
    "[OPTIONS] MANIFEST_LIST [IMAGE...]", "Create a manifest list of images", CREATE_ROWS, _create, least=1
)
ADD = Command("MANIFEST_LIST IMAGE [IMAGE...]", "Add images to a manifest list", (), _add, least=2)
ANNOTATE = Command(
    "[OPTIONS] MANIFEST_LIST IMAGE|DIGEST",
    "Say which platform an entry of a manifest list is for",
    ANNOTATE_ROWS,
    _annotate,
    least=2,
    most=2,
)
REMOVE = Command("MANIFEST_LIST IMAGE|DIGEST", "Take an entry out of a manifest list", (), _remove, least=2, most=2)
INSPECT = Command(
    "MANIFEST_LIST|IMAGE", "Display a manifest list, or what a registry has under a name", (), _inspect, least=1, most=1
)
PUSH = Command(
    "[OPTIONS] MANIFEST_LIST [DESTINATION]",
    "Push a manifest list and its images to a registry",
    PUSH_ROWS,
    _push,
    least=1,
    most=2,
)
RM = Command("MANIFEST_LIST [MANIFEST_LIST...]", "Delete one or more manifest lists", (), _rm, least=1)
