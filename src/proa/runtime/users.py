"""Users and groups of a container, read from its own /etc/passwd and /etc/group by our own parser.

The C library would load name service modules from the container (CVE-2019-14271), so it is never asked. A string of
digits is only ever a number (CVE-2016-3697, CVE-2026-46680), and numbers are checked before anything is assigned
(CVE-2024-40635, CVE-2026-30892).
"""

from __future__ import annotations

import errno

from proa.errors import Invalid
from proa.linux.tuples import NamedTuple
from proa.runtime.root import read_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE_LIMIT = 10 << 20
LINE_LIMIT = 64 << 10
HIGHEST_ID = (1 << 32) - 2


class ResolvedUser(NamedTuple):
    """Ids of a user; `gids` are the supplementary groups without `gid`."""

    uid: int
    gid: int
    gids: tuple[int, ...]
    home: str


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(root_fd: int, user: str, group_add: Sequence[str] = ()) -> ResolvedUser:
    """Resolve Docker's `user[:group]` inside the root that `root_fd` (O_PATH directory) stands for.

    user:      name or number; empty is root. A number needs no account; then the group is 0 and the home `/`.
    group_add: further groups, names or numbers.
    Raises Invalid, in Docker's wording, for unknown names and numbers out of range.
    """
    wanted, _separator, wanted_group = user.partition(":")
    uid = _number(wanted or "0", "uid")
    account = _find_account(root_fd, wanted, uid)
    if account is None and uid is None:
        raise Invalid(
            f"unable to find user {wanted}: no matching entries in passwd file", code="no-such-user", subject=wanted
        )
    name, found_uid, gid, home = account or _Account("", uid or 0, 0, "/")
    gids: list[int] = []
    groups = list(_groups(root_fd)) if name or wanted_group or group_add else []
    if wanted_group:
        gid = _find_group(groups, wanted_group)
    elif name:
        gids = [group.gid for group in groups if name in group.members]
    gids += [_find_group(groups, group) for group in group_add]
    unique = dict.fromkeys(gids)
    unique.pop(gid, None)
    return ResolvedUser(found_uid if uid is None else uid, gid, tuple(unique), home or "/")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(text: str, what: str) -> int | None:
    """The id that a string of ASCII digits is, or None for any other string. Raises Invalid out of range."""
    if not _is_number(text):
        return None
    value = int(text) if len(text) <= 20 else HIGHEST_ID + 1
    if value > HIGHEST_ID:
        shown = text if len(text) <= 20 else text[:20] + "…"
        raise Invalid(f"{what} {shown} is out of range 0-{HIGHEST_ID}", code=f"{what}-out-of-range", subject=shown)
    return value


def _find_account(root_fd: int, wanted: str, uid: int | None) -> _Account | None:
    for fields in _lines(root_fd, "/etc/passwd"):
        if len(fields) < 4:
            continue
        account_uid, account_gid = _field_id(fields[2]), _field_id(fields[3])
        if account_uid is None or account_gid is None:
            continue
        if (account_uid == uid) if uid is not None else (fields[0] == wanted):
            return _Account(fields[0], account_uid, account_gid, fields[5] if len(fields) > 5 else "/")
    return None


def _groups(root_fd: int) -> Iterator[_Group]:
    for fields in _lines(root_fd, "/etc/group"):
        gid = _field_id(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            yield _Group(fields[0], gid, tuple(fields[3].split(",")) if len(fields) > 3 else ())


def _find_group(groups: Sequence[_Group], wanted: str) -> int:
    gid = _number(wanted, "gid")
    if gid is not None:
        return gid
    for group in groups:
        if group.name == wanted:
            return group.gid
    raise Invalid(
        f"unable to find group {wanted}: no matching entries in group file", code="no-such-group", subject=wanted
    )


def _field_id(text: str) -> int | None:
    return int(text) if _is_number(text) and len(text) <= 10 and int(text) <= HIGHEST_ID else None


def _lines(root_fd: int, path: str) -> Iterator[list[str]]:
    """Fields of each line. A file that is missing has none; one that is no regular file or too big is refused."""
    try:
        content = read_regular(root_fd, path, FILE_LIMIT)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EXDEV):
            return  # a link that leads nowhere, or a socket: no accounts
        raise Invalid(
            f"{path} of the image cannot be read: {error.strerror}", code="bad-user-file", subject=path
        ) from None
    for line in (content or b"").split(b"\n"):
        if line and len(line) <= LINE_LIMIT and line[0] not in b"#+-":
            yield line.decode("utf-8", "surrogateescape").strip("\r").split(":")
