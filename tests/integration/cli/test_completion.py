"""Completion in the real shells, of commands, options and the engine's names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import engines
import pytest
from terminals import Terminal

pytestmark = pytest.mark.root

BIN = str(Path(sys.executable).parent)

# line -> every candidate, each whole
LINES = {
    "proa vers": ["version"],
    "proa imag": ["image", "images"],
    "proa volume sn": ["snapshot"],
    "proa run --netw": ["--network", "--network-alias"],
    "proa container ls --no-t": ["--no-trunc"],
    "proa stop fi": ["first-one"],
    "proa exec -it fi": ["first-one"],
    "proa -H unix:///nowhere stop first": [],
    "proa run --network bri": ["bridge"],
    "proa rmi busy": ["busybox:latest"],
    "proa run --rm busybox:la": ["busybox:latest"],
    "proa volume rm my": ["my-files"],
    "proa network inspect bri": ["bridge"],
    "proa cp fi": ["first-one:"],
    "proa help compl": ["completion"],
    "proa completion f": ["fish"],
}


@pytest.fixture(scope="module")
def names(shared: engines.PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shell with names to complete, in an empty directory."""
    shared.proa("create", "--name", "first-one", "--network", "none", "busybox", "true")
    shared.proa("volume", "create", "my-files")
    home = tmp_path_factory.mktemp("home")
    for shell in ("bash", "zsh", "fish"):
        (home / f"proa.{shell}").write_text(shared.out("completion", shell) + "\n")
    path = f"{BIN}:{os.environ['PATH']}"
    return {
        **shared.env,
        "PATH": path,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.parametrize("line", LINES)
def test_bash_offers(line: str, names: dict[str, str]) -> None:
    script = """source "$HOME/proa.bash"; COMP_LINE=$1
read -ra COMP_WORDS <<<"$1"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_proa 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", script, "bash", line], capture_output=True, text=True, env=names, check=False)
    # At a colon bash divides words: what stands before it is on the line already.
    kept = line.split(" ")[-1].rpartition(":")[0]
    expected = [word.removeprefix(f"{kept}:") if kept else word for word in LINES[line]]
    assert [word for word in done.stdout.split("\n") if word] == expected


@pytest.mark.parametrize("line", LINES)
def test_fish_offers(line: str, names: dict[str, str]) -> None:
    script = 'source "$HOME/proa.fish"; complete -C $argv[1]'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, line],
        capture_output=True,
        text=True,
        env=names,
        check=True,
        cwd=names["HOME"],
    )
    assert [word.split("\t")[0] for word in done.stdout.splitlines()] == LINES[line], done.stderr


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'PS1="> "; bind "set enable-bracketed-paste off"'),
    "zsh": (["zsh", "-f", "-i"], 'PS1="> "; autoload -Uz compinit; compinit -u -D'),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_on_a_terminal(shell: str, names: dict[str, str]) -> None:
    """Command, option, name with a colon in it: each finished by the tab key, and the line then run."""
    command, setting = SHELLS[shell]
    terminal = Terminal(command, names, (33, 150))
    terminal.send(f'{setting}; cd "$HOME"; source "$HOME/proa.{shell}"; echo is-"ready"\r'.encode())
    terminal.expect(b"is-ready")
    terminal.send(b"proa inspe\t --form\t 'is {{.Name}}' first\t\r")
    terminal.expect(b"is /first-one")
    terminal.send(b"proa history --form\t 'by {{.ID}} image' -q busybox:la\t; echo ended-\"now\"\r")
    assert b"No such" not in terminal.expect(b"ended-now")
    terminal.send(b"exit\r")
    assert terminal.end() == 0
