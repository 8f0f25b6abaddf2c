"""proa: a container engine you install with pip.

    import proa

    with proa.connect() as engine:
        print(engine.containers.run("hello").stdout.decode())

Importing this package is cheap; what it exports is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa._version import __version__
    from proa.client import (
        AsyncClient,
        AsyncContainer,
        AsyncImage,
        AsyncSession,
        Client,
        Container,
        Event,
        ExecResult,
        Health,
        Healthcheck,
        Image,
        Output,
        Progress,
        RunResult,
        Session,
        Stats,
        Tls,
        connect,
        connect_async,
    )
    from proa.errors import (
        Cancelled,
        Conflict,
        Corrupt,
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

__all__ = [
    "__version__",
    "connect",
    "connect_async",
    "Client",
    "AsyncClient",
    "Container",
    "AsyncContainer",
    "Image",
    "AsyncImage",
    "Session",
    "AsyncSession",
    "Output",
    "RunResult",
    "ExecResult",
    "Progress",
    "Event",
    "Health",
    "Healthcheck",
    "Stats",
    "Tls",
    "ProaError",
    "Invalid",
    "Unauthorized",
    "Denied",
    "NotFound",
    "Conflict",
    "NotModified",
    "Corrupt",
    "Exhausted",
    "Unavailable",
    "Unsupported",
    "TimedOut",
    "Cancelled",
    "Internal",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from proa._version import __version__

        return __version__
    from proa import client, errors

    value = getattr(errors if hasattr(errors, name) else client, name)
    globals()[name] = value
    return value
