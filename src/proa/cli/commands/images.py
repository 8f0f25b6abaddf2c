"""`proa images`, `proa rmi`, `proa tag`."""

from __future__ import annotations

from proa.cli.many import for_each
from proa.cli.options import Command
from proa.client.caller import Caller
from proa.client.endpoint import locate
from proa.client.http import query, quote
from proa.client.jsonlite import loads
from proa.client.names import split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["IMAGES", "RMI", "TAG"]

LIST_ROWS: tuple[Row, ...] = (
    ("all", "a", "flag", "", "Show all images (default hides intermediate images)"),
    ("digests", "", "flag", "", "Show digests"),
    ("filter", "f", "list", "filter", "Filter output based on conditions provided"),
    ("format", "", "text", "string", "Format output: table, json, or a Go template"),
    ("no-trunc", "", "flag", "", "Don't truncate output"),
    ("quiet", "q", "flag", "", "Only show image IDs"),
    ("tree", "", "flag", "", "List the platforms of each image with what they take on disk"),
)
RMI_ROWS: tuple[Row, ...] = (
    ("force", "f", "flag", "", "Force removal of the image"),
    ("no-prune", "", "flag", "", "Do not delete untagged parents"),
    (
        "platform",
        "",
        "list",
        "strings",
        'Remove only the given platform of a multi-platform image ("os/arch[/variant]")',
    ),
    ("remote", "", "flag", "", "Delete tags, or manifests by digest, in their registries instead"),
)

COLUMNS = (
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
)
HEADERS = {
    "CreatedAt": "CREATED AT",
    "Digest": "DIGEST",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}


def image_rows(record: dict[str, Any], *, full: bool = False, digests: bool = False) -> list[dict[str, str]]:
    """The rows of one image: one for each of its names, `<none>` where it has none."""
    from proa.cli.humanise import age, decimal_size, local_time, short_id

    count = record.get("Containers", -1)
    common = {
        "ID": record["Id"] if full else short_id(record["Id"]),
        "CreatedSince": age(record["Created"]),
        "CreatedAt": local_time(record["Created"]),
        "Size": decimal_size(record["Size"]),
        "VirtualSize": decimal_size(record.get("VirtualSize") or record["Size"], 4),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": str(count) if count >= 0 else "N/A",
    }
    tags: dict[str, list[str]] = {}
    for name in record.get("RepoTags") or ():
        repository, tag = split_tag(name)
        if repository != "<none>":
            tags.setdefault(repository, []).append(tag)
    of_digests: dict[str, list[str]] = {}
    for name in record.get("RepoDigests") or ():
        repository, _, digest = name.partition("@")
        if repository != "<none>":
            of_digests.setdefault(repository, []).append(digest)
    rows = []
    for repository, names in tags.items():
        for tag in names:
            shown = (of_digests.pop(repository, []) or ["<none>"]) if digests else ["<none>"]
            rows += [{"Repository": repository, "Tag": tag, "Digest": digest, **common} for digest in shown]
    for repository, names in of_digests.items():
        if repository not in tags:
            shown = names if digests else names[:1]
            rows += [{"Repository": repository, "Tag": "<none>", "Digest": digest, **common} for digest in shown]
    return rows or [{"Repository": "<none>", "Tag": "<none>", "Digest": "<none>", **common}]


def _images(settings: Settings, options: Options, words: list[str]) -> int:
    from proa.cli.filters import filters
    from proa.cli.output import show_rows

    asked = filters(options.texts("filter"), **({"reference": words[0]} if words else {}))
    tree = options.flag("tree")
    if tree and (options.given("format") or options.flag("quiet") or options.flag("digests")):
        from proa.cli.options import UsageError

        raise UsageError("--tree cannot be used together with --format, --quiet or --digests", 1)
    target = query(all=options.flag("all"), filters=asked, digests=options.flag("digests"), manifests=tree)
    records = Caller(locate(settings.host)).call("GET", f"/images/json{target}")
    full = options.flag("no-trunc")
    if tree:
        _show_tree(records, full=full)
        return 0
    digests = options.flag("digests") or ".Digest" in options.text("format")
    rows = [row for record in records for row in image_rows(record, full=full, digests=digests)]
    columns = (*COLUMNS[:2], ("Digest", "DIGEST"), *COLUMNS[2:]) if digests else COLUMNS
    quiet = "ID" if options.flag("quiet") else ""
    if quiet and not options.given("format"):
        rows = list({row["ID"]: row for row in rows}.values())
    show_rows(rows, columns, template=options.text("format"), quiet=quiet, headers=HEADERS)
    return 0


def _show_tree(records: list[dict[str, Any]], *, full: bool) -> None:
    """Each image with the platforms that are here, or that its index offers (0 B); U: a container uses it."""
    from proa.cli.humanise import decimal_size, short_id
    from proa.cli.output import emit, table

    rows = []
    for record in records:
        manifests = [m for m in record.get("Manifests") or () if m["Kind"] == "image"]
        sizes = [(m["Size"]["Total"], m["Size"]["Content"]) for m in manifests]
        used = "U" if any(m["ImageData"]["Containers"] for m in manifests) else ""
        total = [decimal_size(sum(size[i] for size in sizes)) for i in (0, 1)]
        names = record.get("RepoTags") or ["<untagged>"]
        rows += [[name, short_id(record["Id"], full=full), *total, used] for name in names]
        for number, (manifest, size) in enumerate(zip(manifests, sizes, strict=True)):
            platform = manifest["ImageData"]["Platform"]
            text = "/".join(filter(None, (platform.get(k, "") for k in ("os", "architecture", "variant"))))
            branch = "└─ " if number == len(manifests) - 1 else "├─ "
            used = "U" if manifest["ImageData"]["Containers"] else ""
            rows.append([branch + text, short_id(manifest["ID"], full=full), *map(decimal_size, size), used])
    emit(table(["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"], rows))


def _rmi(settings: Settings, options: Options, words: list[str]) -> int:
    if options.flag("remote"):
        from proa.cli.commands.registry import delete_remote

        return delete_remote(settings, words)
    tail = query(force=options.flag("force"), noprune=options.flag("no-prune"))
    for platform in options.texts("platform"):
        tail += f"{'&' if tail else '?'}platforms={quote(platform)}"

    def show(_: str, body: bytes) -> str:
        lines = [f"{key}: {value}" for record in loads(body) for key, value in record.items() if value]
        return "\n".join(lines)

    force = options.flag("force")
    return for_each(
        settings, words, lambda name: ("DELETE", f"/images/{quote(name)}{tail}"), show=show, missing_is_fine=force
    )


def _tag(settings: Settings, _: Options, words: list[str]) -> int:
    repository, tag = split_tag(words[1])
    target = f"/images/{quote(words[0])}/tag{query(repo=repository, tag=tag)}"
    Caller(locate(settings.host)).fetch("POST", target)
    return 0


IMAGES = Command("[OPTIONS] [REPOSITORY[:TAG]]", "List images", LIST_ROWS, _images, most=1)
RMI = Command("[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", RMI_ROWS, _rmi, least=1)
TAG = Command(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    (),
    _tag,
    least=2,
    most=2,
)
