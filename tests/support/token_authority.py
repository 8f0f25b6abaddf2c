"""A token server that a real docker-registry trusts: JWTs signed with openssl, for what each user may do.

USER may do anything in `team/`, pull from `public/` and see the catalog; anybody may pull from `public/`.
Source: distribution, "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from registries import PASSWORD, USER, Server, reply

SERVICE, ISSUER = "proa-tests", "proa-tests-issuer"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenAuthority:
    """`auth` is what the registry's configuration wants; `asked` and `forms` what clients sent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key",
             "-out", folder / "crt", "-days", "2", "-subj", "/CN=proa tests"],
            capture_output=True, check=True,
        )  # fmt: skip
        pem = (folder / "crt").read_text().split("-----")[2]
        self._certificate = "".join(pem.split())
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.refresh_tokens: set[str] = set()
        self.life_s = 300
        self._server = Server(self._answer)
        self.auth = {
            "token": {
                "realm": f"http://{self._server.host}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(folder / "crt"),
            }
        }

    def scopes(self) -> list[str]:
        """Every scope that was asked for, in order."""
        return [scope for _, query in self.asked for text in query.get("scope", []) for scope in text.split()]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        user = ""
        if handler.command == "POST":
            body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
            query = urllib.parse.parse_qs(body)
            if query.get("refresh_token", [""])[0] not in self.refresh_tokens:
                return reply(handler, 401, b'{"details": "unknown refresh token"}')
            user = USER
        elif authorization := handler.headers.get("Authorization"):
            if base64.b64decode(authorization.removeprefix("Basic ")).decode() != f"{USER}:{PASSWORD}":
                return reply(handler, 401, b'{"details": "incorrect username or password"}')
            user = USER
        self.asked.append((handler.command, query))
        answer: dict[str, Any] = {
            "token": self.token(user, [s for text in query.get("scope", []) for s in text.split()]),
            "expires_in": self.life_s,
        }
        if query.get("offline_token") == ["true"] and user:
            answer["refresh_token"] = secrets.token_urlsafe(24)
            self.refresh_tokens.add(answer["refresh_token"])
        return reply(handler, 200, json.dumps(answer).encode(), Content_Type="application/json")

    def token(self, user: str, scopes: list[str]) -> str:
        """A JWT for what of `scopes` the user may do."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed: set[str] = set()
            if user and (name.startswith("team/") or kind == "registry"):
                allowed = {"pull", "push", "delete", "*"}
            elif name.startswith("public/"):
                allowed = {"pull"}
            granted = sorted(set(actions.split(",")) & allowed)
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._certificate]}
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + self.life_s, "nbf": now - 10, "iat": now,
            "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        signed = f"{_text(json.dumps(header).encode())}.{_text(json.dumps(claims).encode())}"
        signature = subprocess.run(
            ["/usr/bin/openssl", "dgst", "-sha256", "-sign", self._folder / "key"],
            input=signed.encode(), capture_output=True, check=True,
        ).stdout  # fmt: skip
        return f"{signed}.{_text(signature)}"

    def close(self) -> None:
        """End it."""
        self._server.close()
