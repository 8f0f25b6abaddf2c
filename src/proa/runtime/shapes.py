"""Documents of decoded JSON as checked, typed objects, by descriptions that are cheap to make.

    class User(Shape):
        uid: int = field(integer(0, HIGHEST_ID), 0)
        additional_gids: Sequence[int] = field(listed(integer(0, HIGHEST_ID)), ())

    convert(document, User)     raises Mismatch: Expected `int`, got `str` - at `$.additionalGids[0]`

msgspec does the same for the rest of proa and is faster at it, by 50 us a container. Importing it takes 20 ms, though,
and `proa-runtime` is a new process for each.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, NoReturn, TypeVar

    Check = Callable[[Any], Any]  # returns the value as it is to be kept; raises Mismatch
    S = TypeVar("S", bound="Shape")

__all__ = [
    "ALPHANUMERIC",
    "Mismatch",
    "Shape",
    "anything",
    "boolean",
    "convert",
    "field",
    "integer",
    "listed",
    "mapped",
    "optional",
    "shaped",
    "text",
]

ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")

_REQUIRED: Any = object()
_NAMES = {dict: "object", list: "array", tuple: "array", type(None): "null"}


class Mismatch(ValueError):
    """A document is not of the shape it is to have; says where."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path = ""

    def below(self, step: str) -> Mismatch:
        """The same, seen from one level further out."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"{self.what} - at `${self.path}`" if self.path else self.what


class _Field:
    __slots__ = ("check", "default", "wire")

    def __init__(self, check: Check, default: Any, wire: str) -> None:
        self.check = check
        self.default = default
        self.wire = wire


def field(check: Check, default: Any = _REQUIRED, *, wire: str = "") -> Any:
    """One field of a `Shape`. default: what it is when the document lacks it; without one it must be there.

    wire: its name in the document, when that is not the field's in camelCase.
    """
    return _Field(check, default, wire)


class Shape:
    """An object of a document; its fields are class attributes made by `field`. Others of the document are ignored."""

    _fields: ClassVar[dict[str, tuple[str, Check]]] = {}
    _needed: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __init_subclass__(cls) -> None:
        cls._fields = {}
        needed = []
        for name, one in list(cls.__dict__.items()):
            if isinstance(one, _Field):
                first, *rest = name.split("_")
                wire = one.wire or first + "".join([word.capitalize() for word in rest])
                cls._fields[wire] = (name, one.check)
                if one.default is _REQUIRED:
                    needed.append((name, wire))
                    delattr(cls, name)
                else:
                    setattr(cls, name, one.default)  # what is not given is found there
        cls._needed = tuple(needed)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name, _check in self._fields.values())

    __hash__ = None  # type: ignore[assignment]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is not to be changed")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([f'{name}={value!r}' for name, value in self.__dict__.items()])})"


def convert(value: Any, shape: type[S]) -> S:
    """The value as an object of this shape. Raises Mismatch."""
    if type(value) is not dict:
        _refuse("object", value)
    fields = shape._fields
    made = shape.__new__(shape)
    found = made.__dict__
    for wire, given in value.items():
        known = fields.get(wire)
        if known is not None:
            try:
                found[known[0]] = known[1](given)
            except Mismatch as error:
                raise error.below(f".{wire}") from None
    for name, wire in shape._needed:
        if name not in found:
            raise Mismatch(f"Object missing required field `{wire}`")
    return made


def _refuse(wanted: str, value: object) -> NoReturn:
    raise Mismatch(f"Expected `{wanted}`, got `{_NAMES.get(type(value), type(value).__name__)}`")


def integer(least: int | None = None, most: int | None = None) -> Check:
    """A whole number in a range; true and 1.0 are none."""

    def check(value: Any) -> int:
        if type(value) is not int:
            _refuse("int", value)
        if least is not None and value < least:
            raise Mismatch(f"Expected `int` >= {least}")
        if most is not None and value > most:
            raise Mismatch(f"Expected `int` <= {most}")
        return value

    return check


def text(value: Any) -> str:
    """A string."""
    if type(value) is not str:
        _refuse("str", value)
    return value


def boolean(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        _refuse("bool", value)
    return value


def anything(value: Any) -> Any:
    """Whatever it is."""
    return value


def optional(check: Check) -> Check:
    """Null, or what `check` takes."""
    return lambda value: None if value is None else check(value)


def listed(check: Check, *, least: int = 0) -> Check:
    """An array of what `check` takes, of `least` items or more; it becomes a tuple."""

    def check_list(value: Any) -> tuple[Any, ...]:
        if type(value) is not list and type(value) is not tuple:
            _refuse("array", value)
        if len(value) < least:
            raise Mismatch(f"Expected `array` of length >= {least}")
        found = []
        try:
            for item in value:
                found.append(check(item))  # noqa: PERF401 - its length says where the mismatch is
        except Mismatch as error:
            raise error.below(f"[{len(found)}]") from None
        return tuple(found)

    return check_list


def mapped(check: Check) -> Check:
    """An object of any names, with values that `check` takes."""

    def check_map(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            _refuse("object", value)
        try:
            return {text(name): check(item) for name, item in value.items()}
        except Mismatch as error:
            raise error.below("[...]") from None

    return check_map


def shaped(shape: type[Shape]) -> Check:
    """An object of this shape."""
    return lambda value: convert(value, shape)
