"""One table from a kind of failure to an HTTP status, and the error body; nothing else decides a status."""

from __future__ import annotations

import errno
import logging

from proa.api.messages import Reply
from proa.errors import Exhausted, Internal, ProaError, Unavailable

log = logging.getLogger("proa.api")

STATUS: dict[str, int] = {
    "invalid": 400,
    "unauthorized": 401,
    "denied": 403,
    "not-found": 404,
    "conflict": 409,
    "not-modified": 304,
    "corrupt": 500,
    "exhausted": 507,
    "unavailable": 503,
    "unsupported": 501,
    "timed-out": 504,
    "cancelled": 499,
    "internal": 500,
}

#: Failures whose kind is right for programs, but for which Docker's clients expect another status.
STATUS_OF_CODE: dict[str, int] = {
    "body-too-large": 413,
    # A start whose command is missing is a bad request: 404 would mean that the container is missing.
    "command-not-found": 400,
    "command-not-executable": 400,
    "descriptors-exhausted": 503,
    # A subnet that clashes is forbidden in Docker's words.
    "pool-overlaps": 403,
}

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.ENOMEM))
_BROKEN_DISK = frozenset((errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ESTALE))
_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))


def status_of(error: ProaError) -> int:
    """The HTTP status of a failure."""
    return STATUS_OF_CODE.get(error.code) or STATUS.get(error.kind, 500)


def as_failure(error: BaseException) -> ProaError:
    """Any exception as a kind: exhausted resources keep their meaning, the rest is a defect."""
    if isinstance(error, ProaError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
        return Exhausted(f"the engine is out of file descriptors: {error.strerror}", code="descriptors-exhausted")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return Exhausted(f"out of space or memory: {error.strerror}", subject=str(error.filename or ""))
    if isinstance(error, OSError) and error.errno in _BROKEN_DISK:
        return Unavailable(
            f"the data root's file system fails: {error.strerror}",
            code="disk-failing",
            subject=str(error.filename or ""),
            hint="the kernel log says more; nothing that was reported done is affected",
        )
    if isinstance(error, MemoryError):
        return Exhausted("out of memory")
    # The text may hold what a container or a registry sent: the log has it, the client gets the class.
    return Internal(f"internal error: {type(error).__name__}", hint="the engine's log has the details")


def logged_failure(error: BaseException, what: str) -> ProaError:
    """As `as_failure`, after logging what is our fault. what: was being done."""
    failure = as_failure(error)
    if isinstance(failure, Internal):
        log.error("%s: %s", what, error, exc_info=error)
    return failure


def last_line(failure: ProaError) -> dict[str, object]:
    """The failure as the last line of a stream whose head has been sent."""
    message = printable(failure.message)
    detail: dict[str, object] = {"message": message, "code": failure.code, "status": status_of(failure)}
    if failure.hint:
        detail["hint"] = printable(failure.hint)
    return {"errorDetail": detail, "error": message}


def error_reply(error: ProaError) -> Reply:
    """The failure as Docker's clients read it, with our stable code and a hint beside the message."""
    status = status_of(error)
    if status == STATUS["not-modified"]:
        return Reply(status=status)
    value = {"message": printable(error.message), "code": error.code}
    if error.hint:
        value["hint"] = printable(error.hint)
    return Reply(status=status, value=value)


def printable(text: str) -> str:
    """Text that any JSON encoder takes: names from a file system may carry undecodable bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
