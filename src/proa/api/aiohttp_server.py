"""aiohttp's server half, without its client half.

`import aiohttp` loads an HTTP client, cookies, form data and two TLS contexts that the engine never uses: some 70 ms
and 6 MB of every engine start. Here the package is entered by its server modules only; whoever asks the package itself
for one of its other names gets all of it, loaded at that moment.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def _enter_package() -> None:
    if "aiohttp" in sys.modules:
        return
    spec = importlib.util.find_spec("aiohttp")
    if spec is None or spec.loader is None:
        raise ImportError("aiohttp is not installed", name="aiohttp")
    package = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def load_all(name: str) -> Any:
        # `from . import hdrs` asks for the attribute first and imports the module after an AttributeError.
        if name.startswith("__") or importlib.util.find_spec(f"aiohttp.{name}") is not None:
            raise AttributeError(name)
        del vars(package)["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    vars(package).update(__version__="", __getattr__=load_all)
    sys.modules["aiohttp"] = package


_enter_package()

from aiohttp.abc import AbstractStreamWriter  # noqa: E402
from aiohttp.http_parser import RawRequestMessage  # noqa: E402
from aiohttp.streams import StreamReader  # noqa: E402
from aiohttp.web_protocol import RequestHandler, RequestPayloadError  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402

__all__ = [
    "AbstractStreamWriter",
    "BaseRequest",
    "RawRequestMessage",
    "RequestHandler",
    "RequestPayloadError",
    "Response",
    "Server",
    "StreamReader",
    "StreamResponse",
]
