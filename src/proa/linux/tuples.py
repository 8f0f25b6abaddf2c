"""`typing.NamedTuple` without its imports: `typing` and `collections` take 10 ms, more than bare Python does to start.

    class Peer(NamedTuple):
        pid: int
        uid: int = 0

Instances are tuples with names, defaults and `_replace`. For modules with postponed annotations, as all of proa's are.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple, Self

__all__ = ["NamedTuple"]

if not TYPE_CHECKING:
    from _collections import _tuplegetter

    class _NamedTuple(type):
        """Makes a class of tuples from the annotations of its body."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if bases:
                fields = body["_fields"] = body["__match_args__"] = tuple(body.get("__annotations__", ()))
                body["_field_defaults"] = {field: body[field] for field in fields if field in body}
                for index, field in enumerate(fields):
                    body[field] = _tuplegetter(index, "")
            body["__slots__"] = ()
            return super().__new__(cls, name, bases, body)

    class NamedTuple(tuple, metaclass=_NamedTuple):  # noqa: SLOT001 - what the type checker takes for typing's
        """See above."""

        def __new__(cls, *given: Any, **named: Any) -> Self:  # noqa: D102
            if named or len(given) != len(cls._fields):
                given = cls._complete(given, named)
            return tuple.__new__(cls, given)

        @classmethod
        def _complete(cls, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
            rest = cls._fields[len(given) :]
            try:
                values = [named[field] if field in named else cls._field_defaults[field] for field in rest]
            except KeyError as error:
                raise TypeError(f"{cls.__name__} needs {error.args[0]}") from None
            if len(given) > len(cls._fields) or not named.keys() <= set(rest):
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}, each once")
            return (*given, *values)

        def _replace(self, **changes: Any) -> Self:
            return type(self)(**{**dict(zip(self._fields, self, strict=True)), **changes})

        def __repr__(self) -> str:
            values = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({values})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)
