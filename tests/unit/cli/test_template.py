from __future__ import annotations

from typing import Any

import pytest

from proa.cli.template import Template, render_rows
from proa.errors import Invalid

VALUE: dict[str, Any] = {
    "Name": "web",
    "Count": 3,
    "Up": True,
    "None": None,
    "Labels": {"b": "2", "a": "1"},
    "List": ["x", "y"],
    "State": {"Status": "running", "Health": None},
    "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{ .State.Status }}", "running"),
        ("{{json .Labels}}", '{"b":"2","a":"1"}'),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.List}}", "[x y]"),
        ("{{.Up}} {{.Count}} {{.None}}", "true 3 <no value>"),
        ('{{upper .Name}} {{.Name | upper}} {{.Name | printf "%5s|"}}', "WEB WEB   web|"),
        ('{{join .List ", "}}', "x, y"),
        ('{{index .Labels "a"}} {{index .List 1}} {{len .List}}', "1 y 2"),
        ("{{range .List}}[{{.}}]{{end}}", "[x][y]"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range .Mounts}}{{.Source}} {{$.Name}} {{end}}", "/a web /b web "),
        ("{{range .None}}x{{else}}empty{{end}}", "empty"),
        ('{{if eq .State.Status "running"}}yes{{else}}no{{end}}', "yes"),
        ('{{if eq .Name "a" "web"}}yes{{end}}', "yes"),
        ("{{if .None}}a{{else if .Up}}b{{else}}c{{end}}", "b"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "web"),
        ("{{$x := .Count}}{{$x}}", "3"),
        ("{{if and .Up (not .None)}}both{{end}}", "both"),
        ("{{(index .Mounts 0).Source}}", "/a"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x", "x"),
        ('{{println "a" 1}}', "a 1\n"),
        ('{{"quoted \\"x\\""}} {{`raw`}}', 'quoted "x" raw'),
        ('{{range split "a,b" ","}}{{.}}-{{end}}', "a-b-"),
        ("{{slice .Name 0 2}} {{truncate .Name 1}} {{title .Name}}", "we w Web"),
    ],
)
def test_what_templates_give(template: str, text: str) -> None:
    assert Template(template).render(VALUE) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name", "unclosed action"),
        ("{{if .Up}}x", "has no {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nope .Name}}", 'function "nope" not defined'),
        ("{{.Name .Count}}", "can't give argument"),
        ('{{"x}}', "unterminated quoted string"),
        ("{{$y}}", "undefined variable"),
        ("{{.Nope}}", "can't evaluate field Nope"),
        ("{{index .List 9}}", "error calling index"),
        ("{{}}", "missing value"),
        ("{{(.Name}}", "unclosed parenthesis"),
    ],
)
def test_what_is_wrong_is_said(template: str, text: str) -> None:
    with pytest.raises(Invalid) as failure:
        Template(template).render(VALUE)
    assert text in failure.value.message


def test_rows_through_templates() -> None:
    rows = [{"ID": "1", "Names": "a"}, {"ID": "22", "Names": "bb"}]
    assert render_rows(rows, "{{.ID}}:{{.Names}}", {}) == "1:a\n22:bb\n"
    assert render_rows(rows, "json", {}) == '{"ID":"1","Names":"a"}\n{"ID":"22","Names":"bb"}\n'
    table = render_rows(rows, r"table {{.ID}}\t{{.Names}}", {"ID": "CONTAINER ID"})
    assert table == "CONTAINER ID   NAMES\n1              a\n22             bb\n"
    assert render_rows([], "table {{.ID}}", {"ID": "CONTAINER ID"}) == "CONTAINER ID\n"
