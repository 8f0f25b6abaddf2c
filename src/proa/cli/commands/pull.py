"""`proa pull` and `proa push`."""

from __future__ import annotations

from proa.cli.options import Command
from proa.cli.terminal import emit
from proa.client.caller import Caller, json_lines
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.client.names import split_tag
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.cli.options import Options, Row, Settings

__all__ = ["PULL", "PUSH", "pull_image"]

PULL_ROWS: tuple[Row, ...] = (
    ("all-platforms", "", "flag", "", "Keep the images for all platforms of a multi-platform image"),
    ("all-tags", "a", "flag", "", "Download all tagged images in the repository"),
    ("platform", "", "text", "string", "Set platform if server is multi-platform capable"),
    ("quiet", "q", "flag", "", "Suppress verbose output"),
)
PUSH_ROWS: tuple[Row, ...] = (
    ("all-tags", "a", "flag", "", "Push all tags of an image to the repository"),
    (
        "compression",
        "",
        "text",
        "string",
        "Compress layers that are plain yet: gzip or zstd, and a level if you like (zstd:9)",
    ),
    ("platform", "", "text", "string", 'Push one platform of a multi-platform image ("os/arch[/variant]")'),
    ("quiet", "q", "flag", "", "Suppress verbose output"),
)


def pull_image(
    caller: Caller,
    image: str,
    *,
    platform: str,
    quiet: bool,
    fd: int,
    all_tags: bool = False,
    all_platforms: bool = False,
) -> None:
    """Pull an image, showing progress on `fd` unless quiet.

    Raises the failure the engine reports.
    """
    from proa.cli.commands.registry import auth_of
    from proa.cli.progress import show_progress

    repository, tag = split_tag(image, "" if all_tags else "latest")
    wanted = query(fromImage=repository, tag=tag, platform=platform, allPlatforms=all_platforms)
    target = f"/images/create{wanted}"
    connection = caller.open("POST", target, headers=(auth_of(caller, image),))
    show_progress(json_lines(connection), fd, quiet=quiet)
    caller.keep(connection)


def _pull(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.client.layouts import parse_transport

    source = parse_transport(words[0])
    if source is not None:
        from proa.cli.commands.archive import bring

        emit(bring(Caller(locate(settings.host)), source) + "\n")
        return 0
    image, quiet, every = words[0], options.flag("quiet"), options.flag("all-tags")
    repository, tag = split_tag(image)
    _refuse_tag(image, tag, every)
    if not tag and not every and not quiet:
        emit("Using default tag: latest\n")
    caller = Caller(locate(settings.host))
    pull_image(
        caller,
        image,
        platform=options.text("platform"),
        quiet=quiet,
        fd=1,
        all_tags=every,
        all_platforms=options.flag("all-platforms"),
    )
    if not every:
        mark = "@" if tag.startswith("sha256:") else ":"
        emit(f"{repository}{mark}{tag or 'latest'}\n")
    return 0


def _refuse_tag(image: str, tag: str, every: bool) -> None:
    if every and tag:
        raise Invalid("tag can't be used with --all-tags/-a", code="bad-options", subject=image)


def _push(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.commands.registry import auth_of
    from proa.cli.progress import show_progress

    image, quiet = words[0], options.flag("quiet")
    repository, tag = split_tag(image, "" if options.flag("all-tags") else "latest")
    _refuse_tag(image, tag, options.flag("all-tags"))
    caller = Caller(locate(settings.host))
    where = query(tag=tag, platform=options.text("platform"), compression=options.text("compression"))
    target = f"/images/{quote(repository)}/push{where}"
    connection = caller.open("POST", target, headers=(auth_of(caller, image),))
    show_progress(json_lines(connection), 1, quiet=quiet)
    if quiet:
        emit(f"{repository}{f':{tag}' if tag else ''}\n")
    return 0


PULL = Command("[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", PULL_ROWS, _pull, least=1, most=1)
PUSH = Command("[OPTIONS] NAME[:TAG]", "Upload an image to a registry", PUSH_ROWS, _push, least=1, most=1)
