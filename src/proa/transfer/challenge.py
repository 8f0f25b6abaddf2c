"""Read WWW-Authenticate: which schemes a server offers, and with which parameters (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from proa.errors import Invalid

LIMIT = 8 << 10

# `++`: a match never gives back part of a word.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 (a word of the grammar)
_SPACE = re.compile(r"[ \t]*")
_SEPARATOR = re.compile(r"[ \t,]*")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e])*)"|({_TOKEN}))')
_SCHEME = re.compile(rf"({_TOKEN})(?![ \t]*=)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")


class Challenge(NamedTuple):
    """One authentication scheme a server offers; names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, several joined by commas. Raises Invalid."""
    if len(header) > LIMIT:
        raise Invalid(f"WWW-Authenticate is {len(header)} characters long", code="challenge-invalid")
    found: list[Challenge] = []
    at = _end(_SEPARATOR, header, 0)
    while at < len(header):
        if scheme := _SCHEME.match(header, at):
            found.append(Challenge(scheme[1].lower(), {}))
            at = _end(_SPACE, header, scheme.end())
            if not _PARAMETER.match(header, at) and (token := _TOKEN68.match(header, at)):
                at = token.end()
        elif (parameter := _PARAMETER.match(header, at)) and found:
            name, quoted, plain = parameter[1].lower(), parameter[2], parameter[3]
            if name in found[-1].parameters:
                raise Invalid(f"WWW-Authenticate names {name!r} twice", code="challenge-invalid")
            found[-1].parameters[name] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            at = parameter.end()
        else:
            raise Invalid(f"WWW-Authenticate is malformed at {header[at : at + 40]!r}", code="challenge-invalid")
        at = _end(_SEPARATOR, header, at)
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
