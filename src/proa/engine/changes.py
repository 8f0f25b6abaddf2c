"""`--change` of commit and import: single Dockerfile instructions applied to an image's defaults."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence

import msgspec

from proa.engine.merge import merge_env
from proa.engine.signal_names import parse_signal
from proa.errors import Invalid
from proa.oci import RunConfig

_PORT = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?/(?:tcp|udp|sctp)", re.ASCII)


def apply_changes(config: RunConfig, changes: Sequence[str]) -> RunConfig:
    """`config` with instructions such as `CMD ["a"]` or `ENV A=b` applied in order. Raises Invalid."""
    config = msgspec.structs.replace(config)
    for line in changes:
        instruction, _, rest = line.strip().partition(" ")
        apply = _INSTRUCTIONS.get(instruction.upper())
        if apply is None:
            raise Invalid(
                f"{instruction.upper()[:40]} is not a valid change command", code="change-invalid", subject=line[:200]
            )
        if not rest.strip():
            raise Invalid(f"{instruction.upper()} requires an argument", code="change-invalid", subject=line[:200])
        apply(config, rest.strip())
    return config


def _command(text: str) -> list[str]:
    """The exec form when it is a JSON list of strings, else the shell form."""
    value = _json_strings(text) if text.startswith("[") else None
    return ["/bin/sh", "-c", text] if value is None else value


def _pairs(text: str) -> dict[str, str]:
    """`A=b C="d e"`, or the old `A b` form."""
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise Invalid(f"cannot read {text[:200]!r}: {e}", code="change-invalid") from None
    if words and "=" not in words[0]:
        return {words[0]: text.partition(" ")[2].strip()}
    out = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise Invalid(f"Syntax error - can't find = in {word[:80]!r}", code="change-invalid")
        out[key] = value
    return out


def _paths(text: str) -> list[str]:
    if not text.startswith("["):
        return text.split()
    value = _json_strings(text)
    if value is None:
        raise Invalid(f"{text[:200]!r} is no JSON list of strings", code="change-invalid")
    return value


def _json_strings(text: str) -> list[str] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else None


def _cmd(c: RunConfig, text: str) -> None:
    c.cmd = _command(text)


def _entrypoint(c: RunConfig, text: str) -> None:
    c.entrypoint = _command(text)


def _env(c: RunConfig, text: str) -> None:
    c.env = merge_env(c.env or [], [f"{k}={v}" for k, v in _pairs(text).items()])


def _label(c: RunConfig, text: str) -> None:
    c.labels = {**(c.labels or {}), **_pairs(text)}


def _expose(c: RunConfig, text: str) -> None:
    ports = {p if "/" in p else f"{p}/tcp" for p in text.lower().split()}
    for port in ports:
        if not (_PORT.fullmatch(port) and all(0 < int(n) < 65536 for n in port.partition("/")[0].split("-"))):
            raise Invalid(f"Invalid containerPort: {port[:40]}", code="change-invalid")
    c.exposed_ports = {**(c.exposed_ports or {}), **{p: {} for p in sorted(ports)}}


def _volume(c: RunConfig, text: str) -> None:
    c.volumes = {**(c.volumes or {}), **{v: {} for v in _paths(text)}}


def _user(c: RunConfig, text: str) -> None:
    c.user = text


def _workdir(c: RunConfig, text: str) -> None:
    c.working_dir = text if text.startswith("/") else f"{c.working_dir.rstrip('/')}/{text}"


def _stopsignal(c: RunConfig, text: str) -> None:
    parse_signal(text)
    c.stop_signal = text


def _onbuild(c: RunConfig, text: str) -> None:
    c.on_build = [*(c.on_build or []), text]


_INSTRUCTIONS: dict[str, Callable[[RunConfig, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
