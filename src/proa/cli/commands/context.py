"""`proa context`: Docker's contexts, beside `default`, which is the engine that is there without one."""

from __future__ import annotations

import sys

from proa.cli.options import Command
from proa.cli.output import emit, show_rows
from proa.client.contexts import DEFAULT, Context, current, find, walk
from proa.client.endpoint import locate
from proa.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["INSPECT", "LS", "SHOW", "USE"]

FORMAT: Row = ("format", "f", "text", "string", "Format output: json, or a Go template")


def _current(settings: Settings) -> str:
    """The one that a command of this name is in: only `docker` follows Docker's own choice."""
    from proa.client.endpoint import variable

    if settings.context or settings.host:
        return settings.context or DEFAULT
    return current() if sys.argv[0] == "docker" or variable("DOCKER_CONTEXT") else DEFAULT


def _default(settings: Settings) -> str:
    """The address of the engine without a context."""
    from proa.client.endpoint import own, variable

    named = not settings.context and (settings.host or variable("PROA_HOST") or variable("DOCKER_HOST"))
    return str(locate(named) if named else own())


def _ls(settings: Settings, options: Options, _: list[str]) -> int:
    chosen = _current(settings)
    template = options.text("format")
    described = [(DEFAULT, "Current DOCKER_HOST based configuration", _default(settings))]
    described += [(context.name, context.description, context.host) for context in walk()]
    rows = []
    for name, description, host in sorted(described):
        mark = name == chosen and template in ("", "table")
        rows.append(
            {
                "Current": name == chosen,
                "Description": description,
                "DockerEndpoint": host,
                "Error": "",
                "Name": f"{name} *" if mark else name,
            }
        )
    columns = (
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    )
    if options.flag("quiet"):
        emit("".join(f"{name}\n" for name, _, _ in sorted(described)))
    else:
        show_rows(rows, columns, template=template)
    return 0


def _show(settings: Settings, __: Options, ___: list[str]) -> int:
    emit(f"{_current(settings)}\n")
    return 0


def _use(_: Settings, __: Options, words: list[str]) -> int:
    name = words[0]
    if name != DEFAULT:
        find(name)
    if sys.argv[0] == "docker":
        from proa.client.credentials import choose_context

        choose_context(name)
    elif name != DEFAULT:
        raise Unsupported(
            f"proa is in no context for good: `{name}` is not used",
            code="context-not-followed",
            hint=f"`proa --context {name}` goes there, and so does DOCKER_CONTEXT={name}",
        )
    emit(f"{name}\n")
    return 0


def _inspect(settings: Settings, options: Options, words: list[str]) -> int:
    documents = [_document(settings, word) for word in words or [_current(settings)]]
    template = options.text("format")
    if template and template != "json":
        from proa.cli.template import Template

        emit("".join(Template(template).render(document) + "\n" for document in documents))
    else:
        import json

        emit(json.dumps(documents, indent=None if template else 4) + "\n")
    return 0


def _document(settings: Settings, name: str) -> dict[str, Any]:
    if name == DEFAULT:
        return {
            "Name": DEFAULT,
            "Metadata": {},
            "Endpoints": {"docker": {"Host": _default(settings), "SkipTLSVerify": False}},
            "TLSMaterial": {},
            "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"},
        }
    context: Context = find(name)
    return {
        "Name": context.name,
        "Metadata": context.document.get("Metadata") or {},
        "Endpoints": context.document.get("Endpoints") or {},
        "TLSMaterial": {"docker": context.tls_files} if context.tls_files else {},
        "Storage": {"MetadataPath": context.meta_path, "TLSPath": context.tls_path},
    }


LS = Command(
    "[OPTIONS]",
    "List contexts",
    (
        ("format", "", "text", "string", "Format output: table, json, or a Go template"),
        ("quiet", "q", "flag", "", "Only show context names"),
    ),
    _ls,
    most=0,
)
SHOW = Command("", "Print the name of the current context", (), _show, most=0)
USE = Command("CONTEXT", "Set the current context of `docker`", (), _use, least=1, most=1)
INSPECT = Command("[OPTIONS] [CONTEXT...]", "Display detailed information on one or more contexts", (FORMAT,), _inspect)
