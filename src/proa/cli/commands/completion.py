"""`proa completion`: scripts for bash, zsh and fish, written from the table of commands and their rows."""

from __future__ import annotations

from proa.cli.commands import COMMANDS, GROUPS, load
from proa.cli.options import GLOBALS, Command
from proa.cli.terminal import emit
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["COMPLETION"]

# What the words after these commands are, asked of the engine at completion time.
_CONTAINERS = "attach commit exec kill logs pause port rename restart rm start stats stop top unpause wait"
_IMAGES = "create history push rmi run save tag"

_BASH = """# proa completion for bash; source it, or put it into /etc/bash_completion.d
_proa() {
  local cur=${COMP_WORDS[COMP_CWORD]} word words= command= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in -*) ;; *) if [ -z "$command" ]; then command=$word; else command="$command $word"; break; fi ;; esac
  done
  case $command in
    '') words='@TOP@' ;;
@CASES@
  esac
  case $cur in
    -*) ;;
    *) case ${command%% *} in
@DYNAMIC@
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _proa proa
"""

_DYNAMIC = {
    _CONTAINERS: "proa ps -a --format '{{.Names}}' 2>/dev/null",
    _IMAGES: "proa images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null",
}


def _flags(row: str) -> str:
    rows = (*load(row).rows, GLOBALS[1])
    return " ".join([text for long, short, *_ in rows for text in (f"--{long}", f"-{short}" if short else "") if text])


def _bash() -> str:
    top = " ".join([*(name for name in COMMANDS if " " not in name), *GROUPS])
    cases = []
    cases += [f"    '{name}' | '{name} '*) words='{_flags(name)}' ;;" for name in COMMANDS if " " not in name]
    for group, (_, words) in GROUPS.items():
        for word, row in words.items():
            cases.append(f"    '{group} {word}'*) words='{_flags(row)}' ;;")
        cases.append(f"    '{group}') words='{' '.join(words)}' ;;")
    dynamic = [f'        {"|".join(names.split())}) words="$words $({ask})" ;;' for names, ask in _DYNAMIC.items()]
    return _BASH.replace("@TOP@", top).replace("@CASES@", "\n".join(cases)).replace("@DYNAMIC@", "\n".join(dynamic))


def _zsh() -> str:
    head = "#compdef proa\n# proa completion for zsh; put it as _proa into a directory of $fpath\n"
    return head + "autoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    lines = ["# proa completion for fish; put it into ~/.config/fish/completions/proa.fish", "complete -c proa -f"]
    for name, (_, _, summary) in COMMANDS.items():
        if " " not in name:
            lines.append(f"complete -c proa -n __fish_use_subcommand -a {name} -d '{_quoted(summary)}'")
            lines += _fish_flags(f"__fish_seen_subcommand_from {name}", load(name))
    for group, (summary, words) in GROUPS.items():
        lines.append(f"complete -c proa -n __fish_use_subcommand -a {group} -d '{_quoted(summary)}'")
        seen = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {' '.join(words)}"
        lines += [
            f"complete -c proa -n '{seen}' -a {word} -d '{_quoted(COMMANDS[row][2])}'" for word, row in words.items()
        ]
    for names, ask in _DYNAMIC.items():
        lines.append(f'complete -c proa -n "__fish_seen_subcommand_from {names}" -a "({ask})"')
    return "\n".join(lines) + "\n"


def _fish_flags(condition: str, command: Command) -> list[str]:
    lines = []
    for long, short, kind, _, text in command.rows:
        letter = f" -s {short}" if short else ""
        value = "" if kind == "flag" else " -r"
        lines.append(f"complete -c proa -n '{condition}' -l {long}{letter}{value} -d '{_quoted(text)}'")
    return lines


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _act(_: Settings, __: Options, words: list[str]) -> int:
    shells = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if words[0] not in shells:
        raise Invalid(f"no completion for `{words[0]}`", code="unknown-shell", hint=f"use {', '.join(shells)}")
    emit(shells[words[0]]())
    return 0


COMPLETION = Command("bash|zsh|fish", "Print a completion script for bash, zsh or fish", (), _act, least=1, most=1)
