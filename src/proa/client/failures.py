"""From an HTTP status and `{"message", "code", "hint"}` back to an error kind."""

from __future__ import annotations

from proa.client.jsonlite import loads
from proa.errors import (
    Conflict,
    Denied,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    NotModified,
    ProaError,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
)

KIND_OF_STATUS: dict[int, type[ProaError]] = {
    304: NotModified,
    400: Invalid,
    401: Unauthorized,
    403: Denied,
    404: NotFound,
    405: Unsupported,
    408: TimedOut,
    409: Conflict,
    412: Conflict,
    413: Exhausted,
    416: Invalid,
    422: Invalid,
    429: Unavailable,
    500: Internal,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
    507: Exhausted,
}

# Docker answers 400 to a start whose command cannot be found or executed; the code says what it is.
KIND_OF_CODE: dict[str, type[ProaError]] = {"command-not-found": NotFound, "command-not-executable": Denied}


def failure(status: int, body: bytes) -> ProaError:
    """The error an engine meant by this reply; unknown statuses are Internal or Invalid by their hundred."""
    message, code, hint = "", "", ""
    try:
        record = loads(body)
    except ValueError:
        message = body.decode("utf-8", "replace").strip()
    else:
        if isinstance(record, dict):
            message = str(record.get("message") or "")
            code = str(record.get("code") or "")
            hint = str(record.get("hint") or "")
    kind = KIND_OF_CODE.get(code) or KIND_OF_STATUS.get(status) or (Invalid if status < 500 else Internal)
    return kind(message or f"the engine answered {status} without a reason", code=code, hint=hint, status=status)


def image_is_missing(error: ProaError) -> bool:
    """True when a container could not be created because its image, or that for the platform asked, is not there."""
    text = error.message.lower()
    return error.code == "platform-not-found" or "no such image" in text or "specified platform" in text


def stream_failure(record: dict[str, object]) -> ProaError | None:
    """The error inside a line of a progress stream (`errorDetail`, `error`), if it is one."""
    detail = record.get("errorDetail")
    text = record.get("error")
    if not detail and not text:
        return None
    fields = detail if isinstance(detail, dict) else {}
    number = fields.get("status", 0)
    code = str(fields.get("code") or "")
    kind = KIND_OF_CODE.get(code) or KIND_OF_STATUS.get(number if isinstance(number, int) else 0, Internal)
    message = str(fields.get("message") or text or "the engine reported a failure")
    return kind(message, code=code, hint=str(fields.get("hint") or ""))
