"""`proa login` and `proa logout`."""

from __future__ import annotations

import sys

from proa.cli.options import Command
from proa.cli.output import emit
from proa.cli.terminal import is_terminal
from proa.client.caller import Caller
from proa.client.credentials import forget, store
from proa.client.endpoint import locate
from proa.client.names import DOCKER_HUB
from proa.errors import Invalid

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
    username, password = _ask(options)
    document = {"username": username, "password": password, "serveraddress": registry}
    reply = Caller(locate(settings.host)).call("POST", "/auth", document) or {}
    store(registry, username, password, str(reply.get("IdentityToken") or ""))
    emit(f"{reply.get('Status') or 'Login Succeeded'}\n")
    return 0


def _logout(_: Settings, __: Options, words: list[str]) -> int:
    registry = _registry(words)
    known = forget(registry)
    emit(f"Removing login credentials for {registry}\n" if known else f"Not logged in to {registry}\n")
    return 0


LOGIN = Command("[OPTIONS] [SERVER]", "Authenticate to a registry", ROWS, _login, most=1)
LOGOUT = Command("[SERVER]", "Log out from a registry", (), _logout, most=1)
