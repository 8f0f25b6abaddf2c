"""Secrets and configs: small files that containers are given, kept by the engine, without any swarm.

secrets/<id>.json, configs/<id>.json in the data root, which nobody but its owner may enter. In a container they are
read-only files (a secret may be a variable instead), which the engine makes in the run directory, memory as a rule,
when the container starts, and removes when it has ended.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from proa.engine.clock import now
from proa.engine.events import Events
from proa.engine.filters import match_labels
from proa.engine.names import new_id
from proa.engine.types import Container, SecretRequest
from proa.errors import Conflict, Invalid, NotFound, ProaError
from proa.storage import make_private, read_record, write_record
from proa.storage.deletion import remove_tree

__all__ = ["NOTHING_GIVEN", "Given", "Kept", "Secrets", "check", "give", "take_back"]

Kind = Literal["secret", "config"]
# Docker's limits.
LIMITS: Mapping[Kind, int] = {"secret": 500 << 10, "config": 1000 << 10}
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)


class Kept(msgspec.Struct, kw_only=True):
    """One secret or config with its data."""

    id: str
    name: str
    created: str
    labels: dict[str, str] = {}
    data: bytes = b""


class Secrets:
    """The secrets, or the configs, of one engine. Thread-safe."""

    def __init__(self, directory: Path, kind: Kind, events: Events) -> None:
        make_private(directory)
        self.kind = kind
        self._directory = directory
        self._events = events
        self._lock = threading.Lock()

    def create(self, name: str, data: bytes, labels: dict[str, str] | None = None) -> str:
        """Keep `data` under a new name; returns the id. Raises Invalid, Conflict."""
        kind = self.kind
        if _NAME.fullmatch(name) is None:
            raise Invalid(
                f"invalid {kind} name {name[:80]!r}: letters, digits, dots, dashes and underscores, 64 at most",
                code=f"{kind}-name",
            )
        if not data or len(data) > LIMITS[kind]:
            raise Invalid(
                f"{kind} data must be larger than 0 and less than {LIMITS[kind]} bytes",
                code=f"{kind}-size",
                subject=name,
            )
        with self._lock:
            if any(known.name == name for known in self.list()):
                raise Conflict(f"{kind} {name} already exists", code=f"{kind}-exists", subject=name)
            made = Kept(id=new_id()[:25], name=name, created=now(), labels=labels or {}, data=data)
            write_record(self._directory / f"{made.id}.json", made)
        self._events.publish(kind, "create", made.id, {"name": name})
        return made.id

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Kept]:
        """All, by name. Filters: id, name (prefixes), label. Raises Invalid for others."""
        found = [read_record(path, Kept) for path in self._directory.glob("*.json")]
        for name, values in (filters or {}).items():
            if name in ("id", "name", "names"):
                found = [k for k in found if any((k.id if name == "id" else k.name).startswith(v) for v in values)]
            elif name == "label":
                found = [k for k in found if match_labels(k.labels, values)]
            else:
                raise Invalid(f"invalid filter '{name}'", code="filter-invalid")
        return sorted(found, key=lambda kept: kept.name)

    def get(self, name_or_id: str) -> Kept:
        """By name, id or unique prefix of an id. Raises NotFound."""
        every = self.list()
        exact = [k for k in every if name_or_id in (k.id, k.name)]
        found = exact or [k for k in every if name_or_id and k.id.startswith(name_or_id)]
        if len(found) != 1:
            raise NotFound(f"{self.kind} {name_or_id} not found", code=f"{self.kind}-not-found", subject=name_or_id)
        return found[0]

    def remove(self, name_or_id: str) -> None:
        """Forget one; containers that run keep what they were given. Raises NotFound."""
        kept = self.get(name_or_id)
        (self._directory / f"{kept.id}.json").unlink(missing_ok=True)
        self._events.publish(self.kind, "remove", kept.id, {"name": kept.name})


class Given(NamedTuple):
    """What a starting container is given: file in the container -> file here; and variables."""

    files: dict[str, str]
    environment: list[str]


NOTHING_GIVEN = Given({}, [])


def check(requests: Sequence[SecretRequest], stores: Mapping[str, Secrets]) -> None:
    """Raises Invalid and NotFound for what could not be given at the start."""
    for request in requests:
        kept = stores[request.kind].get(request.source)
        if request.environment:
            if _VARIABLE.fullmatch(request.environment) is None:
                raise Invalid(f"invalid variable {request.environment!r} for a {request.kind}", code="secret-target")
            if b"\0" in kept.data:
                raise Invalid(f"secret {kept.name} holds a NUL byte: it cannot be a variable", code="secret-data")
        target_of(request)


def target_of(request: SecretRequest) -> str:
    """Where the file appears: /run/secrets/NAME for secrets, /NAME for configs, unless told otherwise."""
    default = "/run/secrets" if request.kind == "secret" else ""
    path = request.target or request.source
    path = path if path.startswith("/") else f"{default}/{path}"
    if ".." in path.split("/") or "\0" in path or path.endswith("/") or len(path) > 4000:
        raise Invalid(f"invalid target {path[:200]!r} of a {request.kind}", code="secret-target")
    return os.path.normpath(path)


def give(record: Container, stores: Mapping[str, Secrets], run: Path) -> Given:
    """Make the files of a container that is about to start. Raises NotFound when one has been removed."""
    given = Given({}, [])
    directory = run / "secrets" / record.id
    for number, request in enumerate(record.host.secrets or []):
        data = stores[request.kind].get(request.source).data
        if request.environment:
            given.environment.append(f"{request.environment}={data.decode('utf-8', 'surrogateescape')}")
            continue
        if not number or not directory.is_dir():
            for path in (directory.parent, directory):
                path.mkdir(mode=0o700, exist_ok=True)
        path = directory / str(number)
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            os.fchown(fd, request.uid, request.gid)
            os.fchmod(fd, request.mode if request.mode is not None else 0o400 if request.kind == "secret" else 0o444)
        finally:
            os.close(fd)
        given.files[target_of(request)] = str(path)
    return given


def take_back(container: str, run: Path) -> None:
    """Remove the files of a container that has ended."""
    try:
        remove_tree(run / "secrets" / container)
    except (OSError, ProaError):
        pass
