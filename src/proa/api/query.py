"""The query string, read the way Docker's server reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from proa.errors import Invalid

MAX_FIELDS = 1000
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_REAL = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?", re.ASCII)
_FALSE = frozenset(("", "0", "no", "false", "none"))


class Query:
    """Parameters by name; unknown ones are simply never asked for."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    @classmethod
    def parse(cls, raw: str) -> Query:
        """Decode `a=b&c=d`. Raises Invalid for broken escapes, bytes that are no UTF-8 or too many fields."""
        values: dict[str, list[str]] = {}
        try:
            for name, value in parse_qsl(raw, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"):
                values.setdefault(name, []).append(value)
        except ValueError as e:
            raise Invalid(f"invalid query string: {e}", code="query-invalid") from None
        return cls(values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def replaced(self, name: str, value: str) -> Query:
        """The same parameters with one of them replaced."""
        return Query({**self._values, name: [value]})

    def text(self, name: str, default: str = "") -> str:
        """The first value."""
        values = self._values.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """Every value, in order."""
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """False for nothing, `0`, `no`, `false`, `none`; anything else is true."""
        values = self._values.get(name)
        if not values:
            return default
        return values[0].strip().lower() not in _FALSE

    def number(self, name: str, default: int | None = None) -> int | None:
        """A decimal integer; `default` when absent or empty. Raises Invalid."""
        value = self.text(name)
        if not value:
            return default
        if _NUMBER.fullmatch(value) is None:
            raise Invalid(f"invalid parameter {name}: {value[:60]!r} is not a number", code="query-invalid")
        return int(value)

    def epoch(self) -> int | None:
        """`sourceDateEpoch`, the client's SOURCE_DATE_EPOCH: seconds, or None. Raises Invalid."""
        value = self.number("sourceDateEpoch")
        if value is not None and not 0 <= value < 1 << 33:
            raise Invalid(f"SOURCE_DATE_EPOCH {value} is out of range", code="query-invalid")
        return value

    def nanoseconds(self, name: str) -> int:
        """A time, given as seconds since the epoch with up to nine decimals; 0 when absent. Raises Invalid."""
        value = self.text(name)
        if not value:
            return 0
        match = _REAL.fullmatch(value)
        if match is None:
            raise Invalid(f"invalid parameter {name}: {value[:60]!r} is not a Unix time", code="query-invalid")
        return int(match[1]) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))

    def platform(self) -> str:
        """`platform` as os/arch[/variant]; since API 1.48 clients send it as JSON. Raises Invalid."""
        return self._platform(self.text("platform"))

    def platforms(self) -> list[str]:
        """Every `platforms`, in the same form. Raises Invalid."""
        return [self._platform(text) for text in self.texts("platforms") if text]

    @staticmethod
    def _platform(text: str) -> str:
        if not text:
            return text
        from proa.oci import parse_platform, strict_loads

        if not text.startswith("{"):
            parse_platform(text)
            return text

        value = strict_loads(text.encode("utf-8", "surrogatepass"), 4096, "platform")
        parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(part, str) for part in parts) or not (parts[0] and parts[1]):
            raise Invalid(f"invalid platform {text[:100]!r}", code="query-invalid")
        return "/".join(part for part in parts if part)

    def filters(self) -> dict[str, list[str]]:
        """`filters`: JSON of name -> list of values, or the older name -> {value: true}. Raises Invalid."""
        raw = self.text("filters")
        if not raw:
            return {}
        from proa.oci import strict_loads

        decoded = strict_loads(raw.encode("utf-8", "surrogatepass"), 1 << 20, "filters")
        if not isinstance(decoded, Mapping):
            raise Invalid("invalid filters: not a JSON object", code="query-invalid")
        return {name: _filter_values(name, values) for name, values in decoded.items()}


def _filter_values(name: str, values: object) -> list[str]:
    if isinstance(values, Mapping) and all(isinstance(on, bool) for on in values.values()):
        return [value for value, on in values.items() if on]
    if isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(v, str) for v in values):
        return list(values)
    raise Invalid(f"invalid filter {name!r}: neither a list of strings nor a map to true", code="query-invalid")
