"""`proa run` and `proa create`.

    connection 1   POST create -> id                                        POST start
    connection 2                     POST attach -> 101  <=== output, input ===> end
    connection 3                     POST wait   -> head ............................ -> exit status

All three are open before the container exists, and attach and wait are both under way before either is answered.
"""

from __future__ import annotations

from proa.cli.container_rows import CREATE_ROWS, RUN_ROWS
from proa.cli.container_spec import create_document
from proa.cli.options import Command
from proa.client.caller import Caller
from proa.client.connection import Connection
from proa.client.endpoint import locate
from proa.client.failures import image_is_missing
from proa.client.http import query
from proa.errors import NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.cli.options import Options, Settings

__all__ = ["CREATE", "RUN"]


def _create(
    caller: Caller, options: Options, document: dict[str, Any], meanwhile: Callable[[], None] = lambda: None
) -> str:
    """Create the container, pulling its image first where that is wanted; returns the id.

    meanwhile: done while the engine is at work
    """
    policy = options.text("pull", "missing")
    if policy not in ("always", "missing", "never"):
        from proa.errors import Invalid

        raise Invalid(f"invalid pull policy `{policy}`", code="bad-pull-policy", hint="use always, missing or never")
    platform = options.text("platform")
    target = f"/containers/create{query(name=options.text('name'), platform=platform)}"
    if policy == "always":
        _pull(caller, document["Image"], platform, quiet=options.flag("quiet"))
    try:
        asked = caller.begin("POST", target, document)
        meanwhile()
        reply = caller.answer(asked)
    except NotFound as error:
        if policy != "missing" or not image_is_missing(error):
            raise
        from proa.cli.output import note

        note(f"Unable to find image '{document['Image']}' locally")
        _pull(caller, document["Image"], platform, quiet=options.flag("quiet"))
        reply = caller.call("POST", target, document)
    for warning in reply.get("Warnings") or ():
        from proa.cli.output import note

        note(f"WARNING: {warning}")
    identity = str(reply["Id"])
    if options.given("cidfile"):
        _write_cidfile(options.text("cidfile"), identity)
    return identity


def _pull(caller: Caller, image: str, platform: str, *, quiet: bool) -> None:
    from proa.cli.commands.pull import pull_image

    pull_image(caller, image, platform=platform, quiet=quiet, fd=2)


def _check_cidfile(options: Options) -> None:
    if options.given("cidfile"):
        from os.path import lexists

        path = options.text("cidfile")
        if lexists(path):
            from proa.errors import Conflict

            raise Conflict(
                f"container ID file {path} exists",
                code="cidfile-exists",
                subject=path,
                hint="make sure the other container is not running and remove the file",
            )


def _write_cidfile(path: str, identity: str) -> None:
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(identity)
    except OSError as error:
        from proa.errors import Invalid

        raise Invalid(f"cannot write the container ID to {path}: {error.strerror}", code="unwritable-file") from None


def _image(caller: Caller, text: str) -> str:
    """What the engine calls the image: `oci:DIR:TAG` and other places for images are loaded first."""
    if text.partition(":")[0] in ("oci", "oci-archive", "docker-archive", "dir"):
        from proa.client.layouts import parse_transport

        source = parse_transport(text)
        if source is not None:
            from proa.cli.commands.archive import bring

            return bring(caller, source)
    return text


def _act_create(settings: Settings, options: Options, words: list[str]) -> int:
    _check_cidfile(options)
    caller = Caller(locate(settings.host))
    document = create_document(options, _image(caller, words[0]), words[1:], detach=False)
    identity = _create(caller, options, document)
    print(identity)
    return 0


def _act_run(settings: Settings, options: Options, words: list[str]) -> int:
    _check_cidfile(options)
    detach = options.flag("detach")
    caller = Caller(locate(settings.host))
    document = create_document(options, _image(caller, words[0]), words[1:], detach=detach)
    if detach:
        identity = _create(caller, options, document)
        status = _start(caller, identity)
        if not status:
            print(identity)
        return status
    return _in_foreground(caller, options, document)


def _start(caller: Caller, identity: str) -> int:
    """Start it; a refusal is told and becomes the exit status."""
    try:
        caller.fetch("POST", f"/containers/{identity}/start")
    except ProaError as error:
        from proa.cli.failures import complain
        from proa.cli.foreground import exit_status_of_start

        complain(error.message, error.hint)
        return exit_status_of_start(error)
    return 0


def _in_foreground(caller: Caller, options: Options, document: dict[str, Any]) -> int:
    endpoint = caller.endpoint
    tty, stdin = document["Tty"], document["AttachStdin"]
    keys = None
    if tty:
        from proa.cli.foreground import require_terminal
        from proa.cli.session import detach_keys
        from proa.cli.terminal import size

        require_terminal(tty=tty, interactive=stdin)
        keys = detach_keys(options.text("detach-keys")) if stdin else None

        rows, columns = size(1)
        if rows and columns:
            document["HostConfig"]["ConsoleSize"] = [rows, columns]
    identity = _create(caller, options, document, _import_the_rest)
    from proa.cli.foreground import Outcome, SignalProxy, carry

    path = f"/containers/{identity}"
    attaching = Connection.open(endpoint)
    streams = query(
        stream=True,
        stdin=stdin,
        stdout=document["AttachStdout"],
        stderr=document["AttachStderr"],
        detachKeys=options.text("detach-keys"),
    )
    attaching.send("POST", f"{path}/attach{streams}", upgrade=True)
    outcome = Outcome(endpoint, identity, "removed" if options.flag("rm") else "next-exit")
    attaching = caller.reply(attaching)
    outcome.begun()
    proxy = SignalProxy(endpoint, identity) if options.flag("sig-proxy", default=True) and not tty else None
    status = _start(caller, identity)
    if status:
        return status
    if proxy is not None:
        proxy.started()
    return carry(attaching, outcome, endpoint, path, tty=tty, stdin=stdin, keys=keys)


def _import_the_rest() -> None:
    """What staying with the container needs: 1.5 ms that the engine works meanwhile."""
    import proa.cli.foreground
    import proa.cli.pump  # noqa: F401


CREATE = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    CREATE_ROWS,
    _act_create,
    least=1,
    interspersed=False,
)
RUN = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    RUN_ROWS,
    _act_run,
    least=1,
    interspersed=False,
    failure_status=125,
)
