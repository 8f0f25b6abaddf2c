"""What a network remembers in files: its subnets for good, its endpoints for as long as the host is up.

<root>/network/<name>.json          {"subnets": [...]}         fsynced: containers keep their addresses over a reboot
<run>/network/<name>/<id>.json      one Endpoint               renamed into place: worthless after a reboot
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import msgspec

from proa.errors import Invalid
from proa.network.addresses import AnyNetwork
from proa.network.endpoint import Endpoint

__all__ = ["EndpointRecords", "forget_subnets", "read_subnets", "write_subnets"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_RECORD_BYTES = 1 << 20


class _NetworkRecord(msgspec.Struct):
    subnets: list[str] = []
    subnet: str = ""  # what engines before IPv6 wrote


def read_subnets(root: Path, name: str) -> tuple[AnyNetwork, ...]:
    """The subnets chosen earlier; none when the file makes no sense (they are then chosen anew)."""
    try:
        with (root / "network" / f"{name}.json").open("rb") as file:
            record = msgspec.json.decode(file.read(_RECORD_BYTES), type=_NetworkRecord)
        return tuple(ip_network(text) for text in record.subnets or [record.subnet])
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return ()


def write_subnets(root: Path, name: str, subnets: Sequence[AnyNetwork]) -> None:
    """Keep the choice, durably."""
    folder = root / "network"
    _make_private(folder)
    record = _NetworkRecord([str(subnet) for subnet in subnets])
    _replace(folder / f"{name}.json", msgspec.json.encode(record), durable=True)


def forget_subnets(root: Path, name: str) -> None:
    """The network is gone for good."""
    (root / "network" / f"{name}.json").unlink(missing_ok=True)


class EndpointRecords:
    """The endpoint files of one network."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self._folder = run_dir / "network" / name

    def load(self) -> dict[str, Endpoint]:
        """All endpoints by container id; a file that cannot be read is dropped, reconcile removes what it stood for."""
        found: dict[str, Endpoint] = {}
        if not self._folder.is_dir():
            return found
        for path in self._folder.iterdir():
            try:
                with path.open("rb") as file:
                    endpoint = msgspec.json.decode(file.read(_RECORD_BYTES), type=Endpoint)
            except (OSError, ValueError):
                path.unlink(missing_ok=True)
                continue
            found[endpoint.container_id] = endpoint
        return found

    def write(self, endpoint: Endpoint) -> None:
        """Replace one endpoint's file."""
        path = self._path(endpoint.container_id)
        data = msgspec.json.encode(endpoint)
        try:
            _replace(path, data, durable=False)
        except FileNotFoundError:
            _make_private(self._folder.parent)
            _make_private(self._folder)
            _replace(path, data, durable=False)

    def remove(self, container_id: str) -> None:
        """Remove one endpoint's file; a missing one is fine."""
        self._path(container_id).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove the folder."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                path.unlink(missing_ok=True)
            self._folder.rmdir()

    def _path(self, container_id: str) -> Path:
        if not _ID.fullmatch(container_id):
            raise Invalid(f"invalid container id: {container_id!r}", code="container-id", subject=container_id)
        return self._folder / f"{container_id}.json"


def _make_private(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _replace(path: Path, data: bytes, *, durable: bool) -> None:
    # One writer at a time (the network's lock), so a fixed name is free; leftovers of a crash are overwritten.
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, data)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    if durable:
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
