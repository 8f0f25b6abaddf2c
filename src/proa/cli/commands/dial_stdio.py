"""`proa system dial-stdio`: the engine's socket at standard input and output, as `docker -H ssh://` asks for it.

Two threads, one for each direction, so that neither side's waiting stops the other. The end of standard input becomes
the end of what the engine is sent; the engine's end ends the command.
"""

from __future__ import annotations

from proa.cli.options import Command
from proa.client.connection import Connection
from proa.client.endpoint import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["DIAL_STDIO"]

PIECE = 64 << 10


def _dial(settings: Settings, _: Options, __: list[str]) -> int:
    import os
    import socket
    import threading

    connection = Connection.open(locate(settings.host))
    engine = socket.socket(fileno=os.dup(connection.fileno()))
    engine.setblocking(True)

    def send() -> None:
        try:
            while data := os.read(0, PIECE):
                engine.sendall(data)
            engine.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the engine has gone: the other direction sees it

    threading.Thread(target=send, name="stdin", daemon=True).start()
    try:
        while data := engine.recv(PIECE):
            while data:
                data = data[os.write(1, data) :]
    except ConnectionResetError:
        return 1
    return 0


DIAL_STDIO = Command("", "Connect standard input and output to the engine", (), _dial, most=0)
