"""Help and the manual page: every command in them, in order, with its summary, usage and options."""

from __future__ import annotations

import re
import subprocess

import pytest

from proa.cli import commands, dispatch, table
from proa.cli.manual import manual

COMMANDS = sorted(table.COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_words_for_people(name: str) -> None:
    command = commands.load(name)
    assert re.fullmatch(r"[A-Z].*[^.]", command.summary)
    assert not command.rows or "[OPTIONS]" in command.usage, command.usage
    assert command.least == 0 or command.usage.removeprefix("[OPTIONS]").strip()
    assert all(re.match(r"\S.*[^.]$", row[4]) for row in command.rows)


def listed(text: str, heading: str) -> list[str]:
    block = text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
    return [line.split()[0] for line in block.splitlines()]


def test_lists_of_commands_are_sorted(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    dispatch(["--help"])
    text = capfdbinary.readouterr().out.decode()
    for heading in ("Management Commands", "Commands"):
        names = listed(text, heading)
        assert len(names) > 5
        assert names == sorted(names)
    for group, (_, words) in table.GROUPS.items():
        dispatch([group, "--help"])
        assert listed(capfdbinary.readouterr().out.decode(), "Commands") == sorted(words)


def test_the_manual_is_a_page_that_man_can_show() -> None:
    shown = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", "-rLL=160n", "-ww"],
        input=manual(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    text = re.sub(r"\s+", " ", shown.stdout)
    for name in COMMANDS:
        command = commands.load(name)
        assert f"proa {name} {command.usage}".rstrip() in text
        assert f"{command.summary}." in text
        assert all(f"--{row[0]}" in text for row in command.rows)
