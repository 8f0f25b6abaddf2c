"""JSON without the json package, whose import is half of a short verb's time.

The scanner and the string encoder are the C parts of CPython's own json; where they are missing, json it is.
"""

from __future__ import annotations

import posix

from proa.errors import Corrupt, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ["decode", "encode", "read_document", "write_document", "write_text"]

# A config.json with the largest seccomp profile known has 60 KiB.
LIMIT_BYTES = 8 << 20
_BLANK = " \t\r\n"


class _Context:
    """What `_json.make_scanner` is told by attributes."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is there twice")
        return found

    @staticmethod
    def parse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")


def decode(text: str, what: str) -> Any:
    """The value of a JSON text. Raises Invalid for anything that is not exactly one value, naming `what`."""
    start = 0
    while start < len(text) and text[start] in _BLANK:
        start += 1
    try:
        value, end = _scanner()(text, start)
    except StopIteration as error:
        raise Invalid(f"{what} is not JSON (at character {error.value})", code="invalid-json", subject=what) from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} is not JSON: {error}", code="invalid-json", subject=what) from None
    except SystemError:  # the scanner has no exception to raise as long as json is not loaded
        raise Invalid(f"{what} is not JSON: {_why(text)}", code="invalid-json", subject=what) from None
    if text[end:].strip(_BLANK):
        raise Invalid(f"{what} goes on after its JSON value", code="invalid-json", subject=what)
    return value


def _why(text: str) -> str:
    import json

    try:
        json.loads(text)
    except ValueError as error:
        return str(error)
    return "it cannot be read"


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.JSONDecoder(object_pairs_hook=_Context.object_pairs_hook).raw_decode
    scanner: Any = make_scanner
    scan: Callable[[str, int], tuple[Any, int]] = scanner(_Context)
    return scan


def encode(value: Any) -> str:
    """JSON of dicts, lists, strings, numbers, booleans and None; ASCII only."""
    try:
        from _json import encode_basestring_ascii as quote
    except ImportError:
        from json import dumps as quote
    return _encode(value, quote)


def _encode(value: Any, quote: Any) -> str:
    if isinstance(value, str):
        return str(quote(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(key)}:{_encode(item, quote)}" for key, item in value.items()) + "}"
    return "[" + ",".join(_encode(item, quote) for item in value) + "]"


def read_document(path: str) -> Any:
    """The value of a JSON file, `-` for standard input. Raises NotFound, Invalid."""
    try:
        with open(0 if path == "-" else path, "rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path}: no such file or directory", code="no-such-file", subject=path) from None
    if len(raw) > LIMIT_BYTES:
        raise Invalid(f"{path} is larger than {LIMIT_BYTES} bytes", code="too-large", subject=path)
    try:
        return decode(raw.decode(), path)
    except UnicodeDecodeError:
        raise Corrupt(f"{path} is not UTF-8", code="invalid-json", subject=path) from None


def write_document(path: str, value: Any, mode: int = 0o600) -> None:
    """Replace a file by the JSON of `value`; readers see the old one or the new one."""
    write_text(path, encode(value), mode)


def write_text(path: str, text: str, mode: int = 0o600) -> None:
    """Replace a file's content; readers see the old one or the new one."""
    directory, _slash, name = path.rpartition("/")
    temporary = f"{directory}/.{name}.{posix.getpid()}" if directory or path[:1] == "/" else f".{name}.{posix.getpid()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(temporary, flags, mode)
    try:
        try:
            data = text.encode("utf-8", "surrogateescape")
            while data:
                data = data[posix.write(fd, data) :]
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except BaseException:
        posix.unlink(temporary)
        raise
