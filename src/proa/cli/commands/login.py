"""`proa login` and `proa logout`."""

from __future__ import annotations

import sys

from proa.cli.options import Command
from proa.cli.output import emit, note
from proa.cli.terminal import is_terminal
from proa.client.caller import Caller
from proa.client.credentials import config_path, credentials_for, forget, store
from proa.client.endpoint import locate
from proa.client.names import DOCKER_HUB
from proa.errors import Invalid, Unauthorized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["LOGIN", "LOGOUT"]

ROWS: tuple[Row, ...] = (
    ("password", "p", "text", "string", "Password"),
    ("password-stdin", "", "flag", "", "Take the password from stdin"),
    ("username", "u", "text", "string", "Username"),
)


def _registry(words: list[str]) -> str:
    if not words or words[0] in ("docker.io", "index.docker.io"):
        return DOCKER_HUB
    return words[0].removeprefix("https://").removeprefix("http://").rstrip("/")


def _ask(options: Options) -> tuple[str, str]:
    username, password = options.text("username"), options.text("password")
    if password:
        note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if options.flag("password-stdin"):
        if not username or password:
            raise Invalid("--password-stdin wants --username and no --password", code="bad-options")
        return username, sys.stdin.read().rstrip("\r\n")
    if not (username and password) and not is_terminal(0):
        raise Invalid(
            "cannot ask for a password: stdin is not a terminal", code="not-a-terminal", hint="use --password-stdin"
        )
    if not username:
        sys.stdout.write("Username: ")
        sys.stdout.flush()
        username = sys.stdin.readline().strip()
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
    if not username or not password:
        raise Invalid("username and password are required", code="bad-credentials")
    return username, password


def _login(settings: Settings, options: Options, words: list[str]) -> int:
    registry = _registry(words)
    caller = Caller(locate(settings.host))
    if not any(options.given(name) for name in ("username", "password", "password-stdin")) and _known(caller, registry):
        return 0
    username, password = _ask(options)
    document = {"username": username, "password": password, "serveraddress": registry}
    reply = caller.call("POST", "/auth", document) or {}
    kept = store(registry, username, password, str(reply.get("IdentityToken") or ""))
    if kept == config_path():
        note(
            f"WARNING! Your credentials are stored unencrypted in '{kept}'.\nConfigure a credential helper to avoid it."
        )
    emit(f"{reply.get('Status') or 'Login Succeeded'}\n")
    return 0


def _known(caller: Caller, registry: str) -> bool:
    """Log in with what is kept for a registry; False when there is nothing, or it is refused."""
    found = credentials_for(registry)
    if not found:
        return False
    name = f" [Username: {found['username']}]" if found.get("username") else ""
    emit(f"Authenticating with existing credentials...{name}\n")
    try:
        reply = caller.call("POST", "/auth", {**found, "serveraddress": registry}) or {}
    except Unauthorized as error:
        note(f"Login did not succeed: {error.message}")
        return False
    emit(f"{reply.get('Status') or 'Login Succeeded'}\n")
    return True


def _logout(_: Settings, __: Options, words: list[str]) -> int:
    registry = _registry(words)
    known = forget(registry)
    emit(f"Removing login credentials for {registry}\n" if known else f"Not logged in to {registry}\n")
    return 0


LOGIN = Command("[OPTIONS] [SERVER]", "Authenticate to a registry", ROWS, _login, most=1)
LOGOUT = Command("[SERVER]", "Log out from a registry", (), _logout, most=1)
