"""User namespaces: which ids of the machine a container's ids are, by `--userns`, and whose they are.

    ""         as configured by `userns-remap`; without it, `host`
    host       the machine's own ids
    auto       a range of its own, no other container's; `auto:size=N` for another number of ids than 65536
    remap:NAME the ranges of the user NAME in /etc/subuid and /etc/subgid, which all containers of that kind share
    map:uid=INSIDE:OUTSIDE:SIZE,gid=INSIDE:OUTSIDE:SIZE,...     as given; without `gid` the groups as the users
    keep-id    the user who runs the engine is himself inside, too (for engines that do not run as root)

A container's maps are part of its record, made when it is created: the records are the list of what is taken. Engines
of other data roots cannot be asked; each begins to look for a free range at another place.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from proa.engine.catalog import Catalog
from proa.engine.types import Container, HostConfig, IdMaps
from proa.errors import Exhausted, Invalid, NotFound
from proa.runtime.userns import Mapping, check_mappings, outside_id

AUTO_SIZE = 65536
# Above what systemd, newuidmap's users and systemd-nspawn take by default (uids-gids of systemd's documentation).
RANGE = (0x7000_0000, 0x1000_0000)
_MAP = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class Own(NamedTuple):
    """An engine's unprivileged user: who he is outside, and how many ids he has, himself included."""

    uid: int
    gid: int
    ids: int


class UserNamespaces:
    """Gives containers their maps. `remap` is the configuration's `userns-remap`, `space` the ids to give away."""

    def __init__(
        self, catalog: Catalog, engine_id: str, *, remap: str, space: tuple[int, int], own: Own | None = None
    ) -> None:
        self._catalog = catalog
        self._engine_id = engine_id
        self._remap = remap
        self._own = own
        # Of an unprivileged user's ids each container gets a sixteenth.
        self._space = space if own is None else (1, own.ids - 1)
        self._unit = AUTO_SIZE if own is None else max((own.ids - 1) // 16, 1)
        self._lock = threading.Lock()

    def assign(self, record: Container) -> None:
        """Write the maps into the record of a container that is in the catalog already. Raises Invalid, Exhausted."""
        mode = record.host.userns_mode or self._default()
        check_namespaces(record.host, mode)
        kind, _, argument = mode.partition(":")
        if mode == "host":
            return
        if kind == "auto":
            with self._lock:
                record.id_maps = self._free_range(record, _id_count(argument, self._unit))
        elif kind == "remap" and argument:
            record.id_maps = IdMaps(
                uids=_subordinate("/etc/subuid", argument), gids=_subordinate("/etc/subgid", argument)
            )
        elif kind == "map":
            record.id_maps = parse_maps(argument)
        elif kind == "keep-id":
            if self._own is None:
                raise Invalid("keep-id is only supported in rootless mode", code="userns-mode")
            record.id_maps, user = _keep(self._own, argument)
            record.config.user = record.config.user or user
        else:
            raise Invalid(f"invalid USER mode: {mode}", code="userns-mode", hint="host, auto, keep-id or map:…")

    def _default(self) -> str:
        if not self._remap:
            return "host"
        return "auto" if self._remap == "auto" else f"remap:{self._remap}"

    def _free_range(self, record: Container, size: int) -> IdMaps:
        first, count = self._space
        taken = sorted(_taken(entry.record for entry in self._catalog if entry.record is not record))
        slots = max(count // self._unit, 1)
        begin = first + int(self._engine_id[:8], 16) % slots * self._unit
        for candidate in (begin, first):
            for low, high in taken:
                if high <= candidate:
                    continue
                if low >= candidate + size:
                    break
                candidate = high
            if candidate + size <= first + count:
                maps = [(0, candidate, size)]
                return IdMaps(uids=maps, gids=list(maps))
        raise Exhausted(
            f"there are no {size} ids left for a user namespace in {first}-{first + count - 1}",
            code="no-free-ids",
            hint="remove containers, or configure a larger `userns-range`",
        )


def _taken(records: Iterable[Container]) -> Iterable[tuple[int, int]]:
    """The ranges of the machine's ids that containers have; `keep-id` has all of a user's, so it counts for none."""
    for record in records:
        if record.id_maps is not None and not record.host.userns_mode.startswith("keep-id"):
            for _, outside, size in (*record.id_maps.uids, *record.id_maps.gids):
                yield outside, outside + size


def check_namespaces(host: HostConfig, mode: str) -> None:
    """Refuse what contradicts a user namespace, in Docker's words. Raises Invalid."""
    if mode == "host":
        return
    if host.privileged:
        text = "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace"
        raise Invalid(f"{text} when running privileged mode", code="userns-conflict", hint="--userns=host")
    for kind, other in (("network", host.network_mode), ("PID", host.pid_mode), ("IPC", host.ipc_mode)):
        if other == "host" or other.startswith("container:"):
            whose = "host's" if other == "host" else "other container's"
            text = f"cannot share the {whose} {kind} namespace when user namespaces are enabled"
            raise Invalid(text, code="userns-conflict", hint="--userns=host")


def parse_maps(text: str) -> IdMaps:
    """The maps of `map:…`. Raises Invalid."""
    found: dict[str, list[tuple[int, int, int]]] = {"uid": [], "gid": []}
    for item in text.split(","):
        kind, _, value = item.partition("=")
        match = _MAP.fullmatch(value)
        if kind not in found or match is None:
            raise Invalid(f"invalid id mapping `{item}`: want uid=INSIDE:OUTSIDE:SIZE", code="userns-mode")
        found[kind].append((int(match[1]), int(match[2]), int(match[3])))
    if not found["uid"] or not found["gid"]:
        found["uid"] = found["gid"] = found["uid"] or found["gid"]
    for kind, maps in found.items():
        checked = check_mappings([Mapping(*one) for one in maps], kind)
        if outside_id(checked, 0) is None:
            raise Invalid(f"the {kind} mappings must say what 0 is outside: images belong to root", code="userns-mode")
    return IdMaps(uids=found["uid"], gids=found["gid"])


def own_ids() -> Own | None:
    """Who the root of this process's user namespace is outside, None for the machine's own root."""
    rows = {}
    for kind in ("uid", "gid"):
        text = Path(f"/proc/self/{kind}_map").read_text(encoding="ascii")
        rows[kind] = sorted(tuple(map(int, line.split())) for line in text.splitlines())
    (_, uid, size), gid = rows["uid"][0], rows["gid"][0][1]
    if (uid, size) == (0, (1 << 32) - 1):
        return None
    return Own(uid, gid, min(last_group(None) + 1, sum(size for _, _, size in rows["uid"])))


def _keep(own: Own, argument: str) -> tuple[IdMaps, str]:
    """The maps that leave the engine's user who he is (`uid=` and `gid=` say otherwise), and him as `user:group`."""
    wanted = {"uid": own.uid, "gid": own.gid}
    for item in argument.split(",") if argument else ():
        key, _, value = item.partition("=")
        if key not in wanted or not _NUMBER.fullmatch(value):
            raise Invalid(f"invalid option of --userns=keep-id: {item}", code="userns-mode", hint="keep-id:uid=1000")
        wanted[key] = int(value)

    def maps(self: int) -> list[tuple[int, int, int]]:
        if not 0 <= self < own.ids:
            raise Invalid(f"keep-id needs more ids than {own.ids}: {self} is out of range", code="userns-mode")
        rows = [(0, 1, self), (self, 0, 1), (self + 1, self + 1, own.ids - self - 1)]
        return [row for row in rows if row[2]]

    return IdMaps(uids=maps(wanted["uid"]), gids=maps(wanted["gid"])), f"{wanted['uid']}:{wanted['gid']}"


def _id_count(argument: str, default: int) -> int:
    key, _, value = argument.partition("=")
    if not argument:
        return default
    if key != "size" or not _NUMBER.fullmatch(value) or not 1 <= int(value) <= 1 << 31:
        raise Invalid(f"invalid option of --userns=auto: {argument}", code="userns-mode", hint="auto:size=65536")
    return int(value)


def _subordinate(path: str, name: str) -> list[tuple[int, int, int]]:
    """All ranges of a user in subuid(5) or subgid(5), one after the other from 0. Raises NotFound, Invalid."""
    found: list[tuple[int, int, int]] = []
    inside = 0
    for start, count in read_subordinate(path, name):
        found.append((inside, start, count))
        inside += count
    if not found:
        raise NotFound(
            f"{path} has no ranges of {name}", code="no-subordinate-ids", subject=name, hint=f"{name}:100000:65536"
        )
    return found


def read_subordinate(path: str, name: str, uid: int = -1) -> list[tuple[int, int]]:
    """(first id, count) of a user's ranges, by name or number; none when the file does not exist. Raises Invalid."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (name, str(uid)):
            if not (_NUMBER.fullmatch(fields[1]) and _NUMBER.fullmatch(fields[2])):
                raise Invalid(f"{path}: `{line[:80]}` is no range", code="subordinate-file", subject=path)
            if int(fields[2]):
                found.append((int(fields[1]), int(fields[2])))
    return found


def last_group(maps: IdMaps | None) -> int:
    """The highest group that exists in a container with these maps, counted from 0 without a gap."""
    rows = _own_groups() if maps is None else sorted(maps.gids)
    end = 0
    for inside, _, size in rows:
        if inside > end:
            break
        end = inside + size
    return min(end - 1, (1 << 31) - 1)


@functools.cache
def _own_groups() -> list[tuple[int, int, int]]:
    rows = [line.split() for line in Path("/proc/self/gid_map").read_text(encoding="ascii").splitlines()]
    return sorted((int(inside), int(outside), int(size)) for inside, outside, size in rows)


def check_range(text: str) -> tuple[int, int]:
    """The configuration's `userns-range`, as FIRST:COUNT. Raises ValueError."""
    if not text:
        return RANGE
    first, separator, count = text.partition(":")
    if not (separator and _NUMBER.fullmatch(first) and _NUMBER.fullmatch(count)):
        raise ValueError(f"userns-range {text!r} is not FIRST:COUNT")
    if int(first) < 1 or int(count) < 1 or int(first) + int(count) > (1 << 32) - 2:
        raise ValueError(f"userns-range {text!r} is out of range")
    return int(first), int(count)
