"""`--secret NAME,target=/path,mode=0400` and `--config …` as members of HostConfig."""

from __future__ import annotations

from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["parse_secret"]


def parse_secret(text: str, kind: str) -> dict[str, Any]:
    """Read one value. Raises Invalid for unknown keys, numbers that are none and a missing name."""
    first, *rest = text.split(",")
    out: dict[str, Any] = {"Kind": kind}
    for word in [first if "=" in first else f"source={first}", *rest]:
        key, _, value = word.partition("=")
        if key in ("source", "src", "id") and value:
            out["Source"] = value
        elif key in ("target", "dst", "destination") and value:
            out["Target"] = value
        elif key == "env" and kind == "secret" and value:
            out["Environment"] = value
        elif key in ("uid", "gid") and value.isascii() and value.isdigit():
            out[key.upper()] = int(value)
        elif key == "mode" and value and not set(value) - set("01234567"):
            out["Mode"] = int(value, 8)
        else:
            raise Invalid(f"invalid --{kind} `{text}`: `{word}` is not understood", code=f"bad-{kind}", subject=text)
    if "Source" not in out:
        raise Invalid(f"invalid --{kind} `{text}`: it names no {kind}", code=f"bad-{kind}", subject=text)
    return out
