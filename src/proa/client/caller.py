"""Plain calls to the engine over one kept connection: JSON documents in and out, failures typed."""

from __future__ import annotations

from proa.client.connection import Connection
from proa.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from proa.client.endpoint import Endpoint

__all__ = ["Caller", "json_lines"]

MAX_LINE_BYTES = 16 << 20


class Caller:
    """Calls to one engine; not for several threads at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: Connection | None = None

    def call(self, method: str, target: str, document: Any = None, *, headers: Iterable[tuple[str, str]] = ()) -> Any:
        """One request; returns the decoded reply, None when it is empty.

        Raises the error kind of a status of 400 or more (and NotModified for 304).
        """
        body = self.fetch(method, target, document, headers=headers)
        return loads(body) if body else None

    def answer(self, connection: Connection) -> Any:
        """Wait for the decoded reply to what `begin` sent. Raises like `call`."""
        connection = self.reply(connection)
        body = connection.body()
        self.keep(connection)
        return loads(body) if body else None

    def fetch(
        self, method: str, target: str, document: Any = None, *, headers: Iterable[tuple[str, str]] = ()
    ) -> bytes:
        """One request; returns the reply's bytes. Raises like `call`."""
        connection = self.open(method, target, document, headers=headers)
        body = connection.body()
        self.keep(connection)
        return body

    def open(
        self,
        method: str,
        target: str,
        document: Any = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        upgrade: bool = False,
    ) -> Connection:
        """Send a request and wait for the head of its reply; the body is the caller's to read, then `keep`.

        Raises like `call`.
        """
        return self.reply(self.begin(method, target, document, headers=headers, upgrade=upgrade))

    def begin(
        self,
        method: str,
        target: str,
        document: Any = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        upgrade: bool = False,
    ) -> Connection:
        """Send a request without waiting for anything."""
        connection, self._idle = self._idle or Connection.open(self.endpoint), None
        body = b"" if document is None else dumps(document).encode("utf-8", "surrogateescape")
        try:
            connection.send(method, target, body, headers=headers, upgrade=upgrade)
        except Exception as error:  # noqa: BLE001 - most are raised again; to know their classes takes 0.3 ms
            connection = self._again(connection, error)
        return connection

    def reply(self, connection: Connection) -> Connection:
        """Wait for the head of a reply; the connection it came on may be another one. Raises like `call`."""
        from proa.errors import Unavailable

        try:
            head = connection.head()
        except Unavailable as error:
            connection = self._again(connection, error)
            try:
                head = connection.head()
            except BaseException:
                connection.close()
                raise
        if head.status >= 400 or head.status == 304:
            body = connection.body()
            self.keep(connection)
            from proa.client.failures import failure

            raise failure(head.status, body)
        return connection

    def _again(self, connection: Connection, error: Exception) -> Connection:
        """Send a request once more that an engine did not read before it ended, as one does that was idle."""
        from proa.errors import Unavailable

        request = connection.request
        connection.close()
        if request is None or not isinstance(error, Unavailable) or not error.fields.get("unread"):
            raise error
        method, target, body, headers, upgrade = request
        connection = Connection.open(self.endpoint)
        connection.send(method, target, body, headers=headers, upgrade=upgrade)
        return connection

    def upload(self, method: str, target: str, pieces: Iterable[bytes]) -> Connection:
        """Send a body in pieces; returns the connection at the head of the reply. Raises like `call`."""
        connection, self._idle = self._idle or Connection.open(self.endpoint), None
        connection.send_stream(method, target, pieces)
        return self.reply(connection)

    def keep(self, connection: Connection) -> None:
        """Give a connection back after its reply was read."""
        if connection.reusable and self._idle is None:
            self._idle = connection
        else:
            connection.close()


def json_lines(connection: Connection) -> Iterator[dict[str, Any]]:
    """The JSON objects of a reply that holds one per line, as they come.

    Raises ValueError for a line that is not a JSON object.
    """
    rest = b""
    while data := connection.read():
        rest += data
        if b"\n" not in data and len(rest) < MAX_LINE_BYTES:
            continue
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line.strip():
                yield _record(line)
    if rest.strip():
        yield _record(rest)


def _record(line: bytes) -> dict[str, Any]:
    value = loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {line[:80]!r}")
    return value
