"""Every way proa fails, by kind and never by protocol; imports nothing of proa.

    ProaError
    +-- Invalid        the request or input is wrong
    +-- Unauthorized   who are you?
    +-- Denied         you may not
    +-- NotFound       there is no such thing
    +-- Conflict       the thing's state or name forbids it
    +-- NotModified    it already is as asked
    +-- Corrupt        bytes do not match their digest, size or format
    +-- Exhausted      out of space, memory, descriptors, addresses or ports
    +-- Unavailable    a peer or the engine cannot be reached, or is busy: try again
    +-- Unsupported    proa or this kernel cannot do that
    +-- TimedOut       it took longer than allowed
    +-- Cancelled      the caller went away
    +-- Internal       a defect of proa

The edges (HTTP status, exit status, registry code) each keep one table from kind to their own number.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 5 ms to import, and every short command imports this module
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

__all__ = [
    "Cancelled",
    "Conflict",
    "Corrupt",
    "Denied",
    "Exhausted",
    "Internal",
    "Invalid",
    "NotFound",
    "NotModified",
    "ProaError",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "from_record",
]


class ProaError(Exception):
    """A failure that names what failed, on which object, why, and what to do.

    message: what failed, on which object and why: one line, lowercase unless clients match on Docker's wording.
    code:    stable kebab-case id of this one failure; the kind's name when it has none of its own.
    subject: the object it happened to (a path, a reference, an id), for programs.
    hint:    what the user can do about it, or empty.
    fields:  further JSON-able facts (errno, step, exit_status …).
    """

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, code: str = "", subject: str = "", hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.kind
        self.subject = subject
        self.hint = hint
        self.fields = fields

    def to_record(self) -> dict[str, Any]:
        """The error as JSON-able data, for a pipe or a log; `from_record` is its inverse."""
        return {
            "kind": self.kind,
            "code": self.code,
            "message": self.message,
            "subject": self.subject,
            "hint": self.hint,
            "fields": self.fields,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_record, (self.to_record(),))


class Invalid(ProaError):
    """The request or the input is wrong."""

    kind = "invalid"


class Unauthorized(ProaError):
    """Credentials are missing or were refused."""

    kind = "unauthorized"


class Denied(ProaError):
    """The caller may not do that."""

    kind = "denied"


class NotFound(ProaError):
    """There is no such thing."""

    kind = "not-found"


class Conflict(ProaError):
    """The thing's state or name forbids it."""

    kind = "conflict"


class NotModified(ProaError):
    """It already is as asked."""

    kind = "not-modified"


class Corrupt(ProaError):
    """Bytes do not match their digest, size or format."""

    kind = "corrupt"


class Exhausted(ProaError):
    """Out of space, memory, descriptors, addresses or ports."""

    kind = "exhausted"


class Unavailable(ProaError):
    """A peer or the engine cannot be reached or is busy; trying again may help."""

    kind = "unavailable"


class Unsupported(ProaError):
    """proa or this kernel cannot do that."""

    kind = "unsupported"


class TimedOut(ProaError):
    """It took longer than allowed."""

    kind = "timed-out"


class Cancelled(ProaError):
    """The caller went away or asked to stop."""

    kind = "cancelled"


class Internal(ProaError):
    """A defect of proa."""

    kind = "internal"


KINDS: dict[str, type[ProaError]] = {
    c.kind: c
    for c in (
        Invalid,
        Unauthorized,
        Denied,
        NotFound,
        Conflict,
        NotModified,
        Corrupt,
        Exhausted,
        Unavailable,
        Unsupported,
        TimedOut,
        Cancelled,
        Internal,
    )
}


def from_record(record: Mapping[str, Any]) -> ProaError:
    """Rebuild an error that crossed a pipe; an unknown kind becomes Internal."""
    cls = KINDS.get(str(record.get("kind")), Internal)
    fields = record.get("fields")
    return cls(
        str(record.get("message", "unknown error")),
        code=str(record.get("code", "")),
        subject=str(record.get("subject", "")),
        hint=str(record.get("hint", "")),
        **(fields if isinstance(fields, dict) else {}),
    )
