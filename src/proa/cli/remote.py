"""Where the engine is, when more than --host says it: contexts and TLS, as the docker command reads them."""

from __future__ import annotations

from proa.cli.options import UsageError
from proa.client.endpoint import locate
from proa.client.tls import Tls, config_dir, of_docker, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Settings

__all__ = ["choose", "follow"]


def follow(settings: Settings) -> None:
    """Go to the context that the docker command is in. Raises NotFound."""
    try:
        with open(f"{config_dir()}/config.json", "rb") as file:
            if b'"currentContext"' not in file.read(1 << 20):
                return  # without having imported json
    except OSError:
        return
    from proa.client.contexts import DEFAULT, current, endpoint_of

    name = current()
    if name != DEFAULT:
        settings.context, settings.host = name, endpoint_of(name)


def choose(settings: Settings, options: Options) -> None:
    """Go where the options say. Raises UsageError for two places at once, NotFound for an unknown context."""
    if name := options.text("context"):
        from proa.client.contexts import endpoint_of

        if options.given("host"):
            raise UsageError("conflicting options: cannot specify both --host and --context", 1)
        settings.context, settings.host = name, endpoint_of(name)
        return
    settings.host = locate(options.text("host"), _tls(options))


def _tls(options: Options) -> Tls | bool:
    """A flag that is given goes before the environment; --tlsverify, given at all, means TLS."""
    told = settle(None)
    verify = options.flag("tlsverify", default=told is not None and told.verify)
    if not (options.given("tlsverify") or verify or options.flag("tls", default=told is not None)):
        return False
    return of_docker(
        ca=_absolute(options.text("tlscacert")),
        certificate=_absolute(options.text("tlscert")),
        key=_absolute(options.text("tlskey")),
        verify=verify,
    )


def _absolute(path: str) -> str:
    from posix import getcwd

    return path if not path or path.startswith("/") else f"{getcwd()}/{path}"
