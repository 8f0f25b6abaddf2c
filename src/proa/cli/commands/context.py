"""`proa context`: what scripts ask Docker's contexts. There is one, `default`: the engine that PROA_HOST says."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.output import emit, show_rows
from proa.client.endpoint import locate
from proa.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["INSPECT", "LS", "SHOW", "USE"]

NAME = "default"
FORMAT: Row = ("format", "f", "text", "string", "Format output: json, or a Go template")


def _known(words: list[str]) -> None:
    for word in words:
        if word != NAME:
            raise NotFound(
                f'context "{word}" does not exist',
                code="context-not-found",
                subject=word,
                hint=f"there is one, `{NAME}`; PROA_HOST or --host names another engine",
            )


def _ls(settings: Settings, options: Options, _: list[str]) -> int:
    row = {
        "Current": True,
        "Description": "Current DOCKER_HOST based configuration",
        "DockerEndpoint": str(locate(settings.host)),
        "Error": "",
        "Name": NAME,
    }
    template = options.text("format")
    shown = row if template not in ("", "table") else {**row, "Name": f"{NAME} *"}
    columns = (
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    )
    if options.flag("quiet"):
        emit(f"{NAME}\n")
    else:
        show_rows([shown], columns, template=template)
    return 0


def _show(_: Settings, __: Options, ___: list[str]) -> int:
    emit(f"{NAME}\n")
    return 0


def _use(_: Settings, __: Options, words: list[str]) -> int:
    _known(words)
    emit(f"{NAME}\n")
    return 0


def _inspect(settings: Settings, options: Options, words: list[str]) -> int:
    _known(words)
    document = {
        "Name": NAME,
        "Metadata": {},
        "Endpoints": {"docker": {"Host": str(locate(settings.host)), "SkipTLSVerify": False}},
        "TLSMaterial": {},
        "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"},
    }
    template = options.text("format")
    if template and template != "json":
        from proa.cli.template import Template

        emit(Template(template).render(document) + "\n")
    else:
        import json

        emit(json.dumps([document], indent=None if template else 4) + "\n")
    return 0


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
USE = Command("CONTEXT", "Set the current context", (), _use, least=1, most=1)
INSPECT = Command("[OPTIONS] [CONTEXT...]", "Display detailed information on one or more contexts", (FORMAT,), _inspect)
