"""Every command: its module imports, its help prints, its rows are sound and used, completion knows it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import proa.cli
from proa.cli import commands, dispatch, table
from proa.cli.candidates import candidates
from proa.cli.container_rows import RUN_ROWS

COMMANDS = sorted(table.COMMANDS)
SPELLINGS = [[name] for name in COMMANDS if " " not in name] + [
    [group, word] for group, (_, words) in sorted(table.GROUPS.items()) for word in words
]


@pytest.mark.parametrize("words", SPELLINGS, ids=" ".join)
def test_help_prints(words: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert dispatch([*words, "--help"]) == 0
    text = capfdbinary.readouterr().out.decode()
    assert text.startswith(f"Usage:  proa {' '.join(words)}")
    assert "--help" in text


@pytest.mark.parametrize("words", SPELLINGS, ids=" ".join)
def test_an_unknown_flag_is_told(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert dispatch([*words, "--no-such-flag"]) == 125
    text = capfd.readouterr().err
    assert "unknown flag: --no-such-flag" in text
    assert f"Run 'proa {' '.join(words)} --help'" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_rows_are_sound(name: str) -> None:
    rows = commands.load(name).rows
    longs = [row[0] for row in rows]
    shorts = [row[1] for row in rows if row[1]]
    assert longs == sorted(longs) or name == "run"
    assert len(set(longs)) == len(longs)
    assert len(set(shorts)) == len(shorts)
    for long, short, kind, value, text in rows:
        assert re.fullmatch(r"[a-z0-9-]+", long)
        assert len(short) <= 1
        assert kind in ("flag", "text", "list", "int")
        assert bool(value) == (kind != "flag")
        assert text


def test_every_row_is_read_somewhere() -> None:
    """A flag that nothing reads would be accepted and do nothing."""
    folder = Path(proa.cli.__file__).parent
    words: set[str] = set()
    for module in folder.rglob("*.py"):
        tree = ast.parse(module.read_text())
        rows = {id(node) for row in ast.walk(tree) if isinstance(row, ast.Tuple) and _is_row(row) for node in row.elts}
        words |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in rows
        }
    unread = {row[0] for name in COMMANDS for row in commands.load(name).rows} - words
    assert not unread - {"detach-keys"}
    assert {row[0] for row in RUN_ROWS} <= words | {"detach-keys"}


def _is_row(node: ast.Tuple) -> bool:
    kinds = [e.value for e in node.elts if isinstance(e, ast.Constant)]
    return len(kinds) == 5 and kinds[2] in ("flag", "text", "list", "int")


def test_summaries_agree_with_the_table() -> None:
    for name, (_, _, summary) in table.COMMANDS.items():
        assert commands.load(name).summary == summary


def test_groups_name_rows_that_exist() -> None:
    for _, words in table.GROUPS.values():
        assert set(words.values()) <= set(table.COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["help"]])
def test_the_overview_names_every_command(arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert dispatch(arguments) == 0
    text = capfdbinary.readouterr().out.decode()
    assert all(f"\n  {name} " in text for name in [*COMMANDS, *table.GROUPS] if " " not in name)


def test_no_command_at_all_is_an_error(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert dispatch([]) == 125
    assert dispatch(["image"]) == 125
    capfdbinary.readouterr()


def test_a_slip_of_the_pen_is_answered_with_what_is_near(capfd: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["imports"]) == 125
    text = capfd.readouterr().err
    assert "unknown command: proa imports" in text
    assert "Did you mean this?\n        import" in text
    assert dispatch(["image", "nope"]) == 125
    assert "unknown command: proa image nope" in capfd.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_scripts(shell: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert dispatch(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_bytes(capfdbinary.readouterr().out)
    interpreter = shutil.which(shell)
    if interpreter:
        subprocess.run([interpreter, "-n", str(script)], check=True)


@pytest.mark.parametrize("words", SPELLINGS, ids=" ".join)
def test_completion_knows_every_command_and_option(words: list[str]) -> None:
    assert words[-1] in [word for word, _ in candidates([*words[:-1], ""])]
    _, _, rest = commands.find(words)
    assert rest == []
    command = commands.find(words)[0]
    assert command is not None
    expected = {f"--{row[0]}" for row in command.rows} | {f"-{row[1]}" for row in command.rows if row[1]} | {"--help"}
    assert {word for word, text in candidates([*words, "-"]) if text} == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--hos"], ["--host"]),
        (["--host", ""], []),
        (["-D", "vers"], ["version"]),
        (["image", "pru"], ["prune"]),
        (["nosuch", ""], []),
        (["image", "nosuch", "-"], []),
        (["run", "--name", ""], []),
        (["run", "one", "--n"], []),
        (["logs", "--", "--n"], []),
        (["help", "ver"], ["version"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        ([], sorted([*table.GROUPS, *(name for name in COMMANDS if " " not in name)])),
    ],
    ids=" ".join,
)
def test_candidates(words: list[str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROA_HOST", f"unix://{tmp_path}/none.sock")  # not the engine of whoever runs the tests
    assert [word for word, _ in candidates(words)] == expected
