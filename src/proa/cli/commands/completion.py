"""`proa completion`: scripts for bash, zsh and fish, which ask proa itself what may come next."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["COMPLETION"]

# bash divides words at `:` and `=` too: they are joined again, and what the line holds already is cut off the answers.
_BASH = r"""# proa completion for bash; source it, or put it into /etc/bash_completion.d
_proa() {
  local rest=$COMP_LINE words=() word cur reply i
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if ((i)) && [[ $rest != [[:space:]]* ]]; then words[-1]+=$word; else words+=("$word"); fi
    rest=${rest#"${rest%%[![:space:]]*}"}
    rest=${rest#"$word"}
  done
  cur=${words[-1]}
  COMPREPLY=()
  while IFS=$'\t' read -r reply _; do
    COMPREPLY+=("$reply")
  done < <("${words[0]}" completion words -- "${words[@]:1}" 2>/dev/null)
  if [[ $cur == *[:=]* ]]; then COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*[:=]}"}"}"); fi
  if [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *: ]]; then compopt -o nospace; fi
}
complete -o default -F _proa proa
"""

_ZSH = r"""#compdef proa
# proa completion for zsh; put it as _proa into a directory of $fpath, or source it after compinit
_proa() {
  local line
  local -a found
  for line in "${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  if (( $#found )); then _describe -V proa found; else _files; fi
}
if [[ ${funcstack[1]} == _proa ]]; then _proa "$@"; else compdef _proa proa; fi
"""

_FISH = r"""# proa completion for fish; put it into ~/.config/fish/completions/proa.fish
function __proa_words
  set -l before (commandline -opc)
  set -l current (commandline -ct)
  set -l found ($before[1] completion words -- $before[2..-1] "$current" 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\n' $found
  else
    __fish_complete_path "$current"
  end
end
complete -c proa -f
complete -c proa -a '(__proa_words)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def _act(_: Settings, __: Options, words: list[str]) -> int:
    shell = words[0]
    if shell == "words":  # what the scripts ask
        from proa.cli.candidates import candidates

        asked = words[2:] if words[1:2] == ["--"] else words[1:]
        emit("".join([f"{word}\t{text}\n" for word, text in candidates(asked)]))
        return 0
    if shell not in _SCRIPTS or len(words) > 1:
        raise Invalid(f"no completion for `{' '.join(words)}`", code="unknown-shell", hint=f"use {', '.join(_SCRIPTS)}")
    emit(_SCRIPTS[shell])
    return 0


COMPLETION = Command(
    "bash|zsh|fish", "Print a completion script for bash, zsh or fish", (), _act, least=1, interspersed=False
)
