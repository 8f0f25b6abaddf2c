"""The part of Go templates that `--format` uses: fields, pipelines, if, range, with, variables and Docker's functions.

    {{.Names}}  {{json .}}  {{.State.Status | upper}}  {{range $k, $v := .Labels}}{{$k}}={{$v}}{{end}}
    {{if eq .State "running"}}…{{else}}…{{end}}  {{with .Config}}{{index .Env 0}}{{end}}

`compile_template` turns text into nested lists of nodes once; `Template.render` walks them for every row.
"""

from __future__ import annotations

from proa.cli.template_functions import FUNCTIONS, go_text, truth
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Node = tuple[Any, ...]

__all__ = ["Template", "render_rows"]

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


def _bad(why: str) -> Invalid:
    return Invalid(f"template parsing error: {why}", code="bad-template")


def _tokens(text: str) -> list[str]:
    """Words of one action: names, .paths, "strings" (kept with a leading quote), numbers, | ( ) , and :=."""
    tokens: list[str] = []
    position, end = 0, len(text)
    while position < end:
        char = text[position]
        if char.isspace():
            position += 1
        elif char in "|(),":
            tokens.append(char)
            position += 1
        elif text.startswith(":=", position):
            tokens.append(":=")
            position += 2
        elif char == "`":
            stop = text.find("`", position + 1)
            if stop < 0:
                raise _bad("unterminated raw string")
            tokens.append('"' + text[position + 1 : stop])
            position = stop + 1
        elif char == '"':
            value, position = _string(text, position + 1)
            tokens.append('"' + value)
        else:
            stop = position
            while (
                stop < end
                and not text[stop].isspace()
                and text[stop] not in '|(),"`'
                and not text.startswith(":=", stop)
            ):
                stop += 1
            tokens.append(text[position:stop])
            position = stop
    return tokens


def _string(text: str, position: int) -> tuple[str, int]:
    value = ""
    while position < len(text):
        char = text[position]
        if char == '"':
            return value, position + 1
        if char == "\\":
            position += 1
            value += _ESCAPES.get(text[position : position + 1], text[position : position + 1])
        else:
            value += char
        position += 1
    raise _bad("unterminated quoted string")


class Template:
    """A compiled template."""

    def __init__(self, text: str) -> None:
        """Raises Invalid when the text is not a template."""
        self._pieces = self._split(text)
        self._position = 0
        self._nodes, stop = self._block()
        if stop:
            raise _bad(f"unexpected {{{{{stop}}}}}")

    def render(self, value: Any) -> str:
        """The text for one value. Raises Invalid when a field does not exist."""
        out: list[str] = []
        self._run(self._nodes, value, {"$": value}, out)
        return "".join(out)

    @staticmethod
    def _split(text: str) -> list[tuple[bool, str]]:
        """(is an action, content) in order, with `{{-` and `-}}` trimming already done."""
        pieces: list[tuple[bool, str]] = []
        position, trim = 0, False
        while True:
            start = text.find("{{", position)
            plain = text[position:] if start < 0 else text[position:start]
            if trim:
                plain = plain.lstrip()
            if start < 0:
                pieces.append((False, plain))
                return pieces
            stop = text.find("}}", start)
            if stop < 0:
                raise _bad("unclosed action")
            body = text[start + 2 : stop]
            if body.startswith("- "):
                body, plain = body[2:], plain.rstrip()
            trim = body.endswith(" -")
            body = body.removesuffix(" -").strip()
            pieces.append((False, plain))
            if not body.startswith("/*"):
                pieces.append((True, body))
            position = stop + 2

    def _block(self) -> tuple[list[Node], str]:
        """Nodes up to else or end (whose text is given back) or the end of the template."""
        nodes: list[Node] = []
        while self._position < len(self._pieces):
            action, content = self._pieces[self._position]
            self._position += 1
            if not action:
                if content:
                    nodes.append(("text", content))
                continue
            word, _, rest = content.partition(" ")
            if word in ("end", "else"):
                return nodes, content
            if word in ("if", "with", "range"):
                nodes.append(self._branch(word, rest))
            else:
                nodes.append(("show", *self._assignment(_tokens(content))))
        return nodes, ""

    def _branch(self, word: str, rest: str) -> Node:
        names, pipeline = self._assignment(_tokens(rest))
        body, stop = self._block()
        other: list[Node] = []
        if stop.startswith("else"):
            chained = stop[4:].strip()
            if chained:
                kind, _, condition = chained.partition(" ")
                return (word, names, pipeline, body, [self._branch(kind, condition)])
            other, stop = self._block()
        if stop != "end":
            raise _bad(f"{{{{{word}}}}} has no {{{{end}}}}")
        return (word, names, pipeline, body, other)

    def _assignment(self, tokens: list[str]) -> tuple[list[str], list[list[Any]]]:
        names: list[str] = []
        if ":=" in tokens:
            at = tokens.index(":=")
            names, tokens = [t for t in tokens[:at] if t != ","], tokens[at + 1 :]
            if not names or not all(n.startswith("$") for n in names):
                raise _bad("only $variables can be assigned")
        pipeline, rest = self._pipeline(tokens)
        if rest:
            raise _bad(f"unexpected {rest[0]}")
        return names, pipeline

    def _pipeline(self, tokens: list[str]) -> tuple[list[list[Any]], list[str]]:
        commands: list[list[Any]] = [[]]
        while tokens:
            part, tokens = tokens[0], tokens[1:]
            if part == ")":
                tokens = [part, *tokens]
                break
            if part == "|":
                commands.append([])
            elif part == "(":
                inner, tokens = self._pipeline(tokens)
                if not tokens:
                    raise _bad("unclosed parenthesis")
                after = tokens[1] if len(tokens) > 1 and tokens[1].startswith(".") and len(tokens[1]) > 1 else ""
                tokens = tokens[2:] if after else tokens[1:]
                commands[-1].append(("group", inner, after))
            else:
                commands[-1].append(part)
        if not all(commands):
            raise _bad("missing value for command")
        for command in commands:
            first = command[0]
            if (
                isinstance(first, str)
                and first[0].isalpha()
                and first not in FUNCTIONS
                and first not in ("true", "false", "nil")
            ):
                raise _bad(f'function "{first}" not defined')
        return commands, tokens

    def _run(self, nodes: Sequence[Node], dot: Any, variables: dict[str, Any], out: list[str]) -> None:
        for node in nodes:
            if node[0] == "text":
                out.append(node[1])
                continue
            value = self._evaluate(node[2], dot, variables)
            names = node[1]
            if node[0] == "show":
                if names:
                    variables[names[0]] = value
                else:
                    out.append(go_text(value))
            elif node[0] == "range":
                items = list(value.items()) if isinstance(value, dict) else list(enumerate(value or ()))
                if isinstance(value, dict):
                    items.sort(key=lambda item: str(item[0]))
                for key, item in items:
                    inner = {**variables, **dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))}
                    self._run(node[3], item, inner, out)
                if not items:
                    self._run(node[4], dot, dict(variables), out)
            else:
                inner = {**variables, **({names[0]: value} if names else {})}
                if truth(value):
                    self._run(node[3], value if node[0] == "with" else dot, inner, out)
                else:
                    self._run(node[4], dot, inner, out)

    def _evaluate(self, pipeline: list[list[Any]], dot: Any, variables: dict[str, Any]) -> Any:
        value: Any = None
        for number, command in enumerate(pipeline):
            last = [value] if number else []
            first = command[0]
            if isinstance(first, str) and first in FUNCTIONS:
                arguments = [self._operand(word, dot, variables) for word in command[1:]] + last
                try:
                    value = FUNCTIONS[first](*arguments)
                except (TypeError, ValueError, KeyError, IndexError) as error:
                    raise Invalid(f"template: error calling {first}: {error}", code="bad-template") from None
            elif len(command) > 1 or last:
                raise _bad(f"can't give argument to non-function {first}")
            else:
                value = self._operand(first, dot, variables)
        return value

    def _operand(self, word: Any, dot: Any, variables: dict[str, Any]) -> Any:
        if isinstance(word, tuple):
            value = self._evaluate(word[1], dot, variables)
            return _field(value, word[2]) if word[2] else value
        if word.startswith('"'):
            return word[1:]
        if word == ".":
            return dot
        if word.startswith("."):
            return _field(dot, word)
        if word.startswith("$"):
            name, mark, path = word.partition(".")
            if name not in variables:
                raise _bad(f"undefined variable {name}")
            return _field(variables[name], "." + path) if mark else variables[name]
        if word in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[word]
        if word.removeprefix("-").isascii() and word.removeprefix("-").isdigit():
            return int(word)
        if word in FUNCTIONS:
            return FUNCTIONS[word]()
        raise _bad(f'unexpected "{word}" in operand')


def _field(value: Any, path: str) -> Any:
    for name in path[1:].split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif value is None:
            return None
        else:
            raise Invalid(
                f"template: can't evaluate field {name} in {path}",
                code="bad-template",
                subject=path,
                hint="`--format json` shows the fields",
            )
    return value


def render_rows(rows: Sequence[Mapping[str, Any]], template: str, headings: Mapping[str, str]) -> str:
    """Rows through a template, a line each; `table …` adds headings and aligns at tabs, `json` prints them whole."""
    if template == "json":
        template = "{{json .}}"
    as_table = template.startswith("table ")
    compiled = Template(template.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n"))
    lines = [compiled.render(dict(row)) for row in rows]
    if not as_table:
        return "".join([f"{line}\n" for line in lines])
    fields = set(rows[0]) if rows else set(headings)
    head = compiled.render({field: headings.get(field, field.upper()) for field in fields})
    from proa.cli.output import table

    cells = [line.split("\t") for line in lines]
    header = head.split("\t")
    return table(header, [(row + [""] * len(header))[: len(header)] for row in cells])
