"""`proa secret` and `proa config`: small files that containers are given."""

from __future__ import annotations

from proa.cli.filters import filters
from proa.cli.many import for_each
from proa.cli.options import Command
from proa.cli.output import emit, show_rows
from proa.cli.values import key_values
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = [
    *("CONFIG_CREATE", "CONFIG_INSPECT", "CONFIG_LS", "CONFIG_RM"),
    *("SECRET_CREATE", "SECRET_INSPECT", "SECRET_LS", "SECRET_RM"),
]

LABEL: Row = ("label", "l", "list", "list", "Set metadata")
LS_ROWS: tuple[Row, ...] = (
    ("filter", "f", "list", "filter", "Filter output based on conditions provided"),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("quiet", "q", "flag", "", "Only display IDs"),
)


def _commands(kind: str) -> tuple[Command, Command, Command, Command]:
    def create(settings: Settings, options: Options, words: list[str]) -> int:
        from base64 import b64encode

        from proa.cli.commands.archive import pieces

        data = b64encode(b"".join(pieces(words[1]))).decode()
        document = {"Name": words[0], "Data": data, "Labels": key_values(options.texts("label"), "label")}
        emit(f"{Caller(locate(settings.host)).call('POST', f'/{kind}s/create', document)['ID']}\n")
        return 0

    def ls(settings: Settings, options: Options, _: list[str]) -> int:
        target = f"/{kind}s{query(filters=filters(options.texts('filter')))}"
        rows = [
            {
                "ID": one["ID"],
                "Name": one["Spec"]["Name"],
                "CreatedAt": one["CreatedAt"],
                "Labels": ",".join([f"{k}={v}" for k, v in sorted((one["Spec"].get("Labels") or {}).items())]),
            }
            for one in Caller(locate(settings.host)).call("GET", target)
        ]
        columns = (("ID", "ID"), ("Name", "NAME"), ("CreatedAt", "CREATED"))
        show_rows(rows, columns, template=options.text("format"), quiet="ID" if options.flag("quiet") else "")
        return 0

    def inspect(settings: Settings, _: Options, words: list[str]) -> int:
        import json

        caller = Caller(locate(settings.host))
        found = [caller.call("GET", f"/{kind}s/{quote(word)}") for word in words]
        emit(json.dumps(found, indent=4) + "\n")
        return 0

    def rm(settings: Settings, _: Options, words: list[str]) -> int:
        return for_each(settings, words, lambda name: ("DELETE", f"/{kind}s/{quote(name)}"))

    several = f"{kind.upper()} [{kind.upper()}...]"
    return (
        Command(
            f"[OPTIONS] {kind.upper()} FILE|-",
            f"Create a {kind} from a file or STDIN",
            (LABEL,),
            create,
            least=2,
            most=2,
        ),
        Command(several, f"Display information on one or more {kind}s", (), inspect, least=1),
        Command("[OPTIONS]", f"List {kind}s", LS_ROWS, ls, most=0),
        Command(several, f"Remove one or more {kind}s", (), rm, least=1),
    )


SECRET_CREATE, SECRET_INSPECT, SECRET_LS, SECRET_RM = _commands("secret")
CONFIG_CREATE, CONFIG_INSPECT, CONFIG_LS, CONFIG_RM = _commands("config")
