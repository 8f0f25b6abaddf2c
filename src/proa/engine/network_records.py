"""Networks as they are asked for, kept and shown: typed records under Docker's wire names, one durable file each.

networks/<id>.json    the record; acknowledged means written and fsynced
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from proa.engine.types import EndpointSettings
from proa.errors import Corrupt
from proa.storage import make_private
from proa.storage.records import Records

__all__ = ["Connection", "NetworkRecord", "NetworkRequest", "NetworkStore", "Pool"]

_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Pool(msgspec.Struct, kw_only=True):
    """One subnet of a network (Docker's IPAMConfig)."""

    subnet: str = msgspec.field(default="", name="Subnet")
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = msgspec.field(default="", name="Gateway")
    reserved: dict[str, str] = msgspec.field(default_factory=dict, name="AuxiliaryAddresses")


class NetworkRequest(msgspec.Struct, kw_only=True):
    """Everything `network create` takes; None for what was not asked."""

    name: str
    driver: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    ipv4: bool | None = None
    ipv6: bool | None = None
    ipam_driver: str = ""
    ipam_options: dict[str, str] | None = None
    pools: list[Pool] = []
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    scope: str = ""


class NetworkRecord(msgspec.Struct, kw_only=True):
    """One network as clients see it.

    pools: the subnets in use; given: those of them that the user chose. containers maps container ids to their
    endpoints, filled in when the record is shown.
    """

    name: str
    id: str
    driver: str
    created: str
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    pools: list[Pool] = []
    given: list[str] = []
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    containers: dict[str, EndpointSettings] = {}

    @property
    def user_defined(self) -> bool:
        """Whether somebody made it: the predefined ones have no names to resolve."""
        return _ID.fullmatch(self.id) is not None and self.name not in ("bridge", "host", "none")


class Connection(msgspec.Struct, kw_only=True):
    """A container's wish to join a network (the body of POST /networks/{id}/connect)."""

    container: str
    endpoint: dict[str, Any] = {}


class NetworkStore:
    """The files of user-defined networks."""

    def __init__(self, root: Path) -> None:
        directory = root / "networks"
        make_private(directory)
        self._records = Records(directory, NetworkRecord)

    def load(self) -> tuple[list[NetworkRecord], list[Corrupt]]:
        """Every network, oldest first, and what cannot be read."""
        found: list[NetworkRecord] = []
        damaged: list[Corrupt] = []
        for _, value in self._records.walk():
            if isinstance(value, Corrupt):
                damaged.append(value)
            else:
                found.append(value)
        return sorted(found, key=lambda record: record.created), damaged

    def save(self, record: NetworkRecord) -> None:
        """Keep it, durably. Raises Exhausted."""
        self._records.put(record.id, record)

    def delete(self, record: NetworkRecord) -> None:
        """Forget it, durably."""
        self._records.delete(record.id)
