"""Credential helpers: programs `docker-credential-NAME` that keep secrets outside the configuration file.

    get    stdin: server                             stdout: {"ServerURL", "Username", "Secret"}
    store  stdin: {"ServerURL", "Username", "Secret"}
    erase  stdin: server                             failure: exit status 1 and the reason on stdout

They run as the user, with the user's environment, without a shell, found in absolute directories of PATH only, and
what they say is bounded. Source: docker/docker-credential-helpers, README.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from typing import Any

from proa.errors import Invalid, NotFound

__all__ = ["TOKEN_USER", "ask", "keep", "remove"]

TOKEN_USER = "<token>"  # noqa: S105 - what helpers answer as the user name of an identity token
TIMEOUT_S = 60
OUTPUT_LIMIT = 1 << 20


def ask(helper: str, server: str) -> tuple[str, str]:
    """The user name and secret for a server. Raises NotFound when the helper has none, Invalid when it fails."""
    try:
        answer: Any = json.loads(_run(helper, "get", server))
    except ValueError:
        answer = None
    user, secret = (answer.get("Username", ""), answer.get("Secret", "")) if isinstance(answer, dict) else (None, None)
    if not isinstance(user, str) or not isinstance(secret, str):
        raise Invalid(
            f"docker-credential-{helper} get: its answer is not the JSON it should be", code="credential-helper-failed"
        )
    return user, secret


def keep(helper: str, server: str, username: str, secret: str) -> None:
    """Give a secret to the helper. Raises Invalid when it fails."""
    _run(helper, "store", json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))


def remove(helper: str, server: str) -> None:
    """Make the helper forget a server. Raises NotFound, Invalid."""
    _run(helper, "erase", server)


def _run(helper: str, verb: str, text: str) -> str:
    program = _program(helper)
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                [program, verb],
                input=text.encode("utf-8", "surrogateescape"),
                stdout=said,
                stderr=subprocess.DEVNULL if verb == "get" else said,
                timeout=TIMEOUT_S,
                check=False,
                close_fds=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Invalid(f"cannot run {program}: {error}", code="credential-helper-failed") from None
        said.seek(0)
        output = said.read(OUTPUT_LIMIT).decode("utf-8", "replace")
    if done.returncode:
        why = " ".join(output.split())[:300]
        if "credentials not found in native keychain" in why.lower():
            raise NotFound(why, code="no-credentials")
        raise Invalid(f"docker-credential-{helper} {verb}: {why or 'failed'}", code="credential-helper-failed")
    return output


def _program(helper: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", helper) is None:
        raise Invalid(f"bad name of a credential helper: {helper!r}", code="bad-docker-config")
    name = f"docker-credential-{helper}"
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise Invalid(
        f"cannot run the credential helper {name}: it is in no directory of PATH",
        code="credential-helper-failed",
        hint=f"install {name}, or take it out of Docker's configuration file",
    )
