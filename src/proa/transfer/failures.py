"""What a registry's refusal means: status and error codes as kinds of failure (distribution-spec, "Error Codes")."""

from __future__ import annotations

import re
from typing import Any

from proa.errors import Denied, Exhausted, Invalid, NotFound, ProaError, Unauthorized, Unavailable, Unsupported
from proa.oci import Reference, strict_loads
from proa.transfer.transport import RETRIED, retry_after_s
from proa.transfer.wire import HttpReply

_TEXT_LIMIT = 300


def registry_failure(reply: HttpReply, what: str, subject: str) -> ProaError:
    """The error for a reply that is no success; `what` says what was tried, `subject` on which object."""
    code, text = _first_error(reply.body)
    why = f"{code.lower().replace('_', ' ')}: {text}" if code else (text or f"status {reply.status}")
    message = f"{what}: {why}"
    fields: dict[str, Any] = {"status": reply.status, "registry_code": code}
    if reply.status in RETRIED:
        fields.update(temporary=True, retry_after_s=retry_after_s(reply.headers.get("retry-after", "")))
    if reply.status == 401 or code == "UNAUTHORIZED":
        return Unauthorized(message, code="unauthorized", subject=subject, hint="log in with: proa login", **fields)
    if reply.status == 403 or code == "DENIED":
        return Denied(message, code="registry-denied", subject=subject, **fields)
    if code == "TOOMANYREQUESTS" or reply.status == 429:
        return Unavailable(
            f"toomanyrequests: {message}", code="rate-limited", subject=subject, hint="log in or wait", **fields
        )
    if reply.status == 404:
        return NotFound(message, code="registry-not-found", subject=subject, **fields)
    if reply.status == 413:
        return Exhausted(message, code="too-large", subject=subject, **fields)
    if reply.status == 405 or code == "UNSUPPORTED":
        return Unsupported(message, code="registry-unsupported", subject=subject, **fields)
    if 400 <= reply.status < 500:
        return Invalid(message, code="registry-refused", subject=subject, **fields)
    return Unavailable(message, code="registry-failed", subject=subject, **fields)


def resolve_failure(reply: HttpReply, reference: Reference) -> ProaError:
    """The error when a reference cannot be resolved, in the words Docker's clients know."""
    name = reference.familiar
    error = registry_failure(reply, f"cannot resolve {name}", name)
    why = error.message.partition(": ")[2]
    if isinstance(error, NotFound):
        if error.fields["registry_code"] == "NAME_UNKNOWN":
            why = f"repository {name} not found: does not exist or no pull access"
        else:
            why = f"manifest for {name} not found: manifest unknown: manifest unknown"
        return NotFound(why, code=error.code, subject=name, **error.fields)
    if isinstance(error, Denied | Unauthorized):
        why = (
            f"pull access denied for {reference.familiar_repository}, repository does not exist or may require "
            f"'docker login': {why}"
        )
        return type(error)(why, code=error.code, subject=name, hint=error.hint, **error.fields)
    return error


def _first_error(body: bytes) -> tuple[str, str]:
    """Code and text of the first error in a registry's JSON; without JSON, what the body says in one line."""
    try:
        errors = strict_loads(body, len(body))["errors"]
        code, text = str(errors[0].get("code") or ""), str(errors[0].get("message") or "")
    except (Invalid, LookupError, TypeError, AttributeError):
        plain = body[:_TEXT_LIMIT].decode("utf-8", "replace").strip()
        return "", "" if plain.startswith("<") else printable(plain)
    return re.sub(r"[^A-Z0-9_]", "", code)[:64], printable(text)


def printable(text: str) -> str:
    """One line of `text` from outside without control characters, cut at a sane length."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_TEXT_LIMIT]).split())
