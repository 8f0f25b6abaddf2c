"""Networks: made, listed and removed. What containers do with them is in `endpoints`.

Predefined are `bridge` (the default, with NAT and published ports), `host` and `none`; users make bridge, macvlan and
ipvlan networks. A record is a durable file; bridge, addresses and rules are made true again at every start.
"""

from __future__ import annotations

import builtins
import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from proa.engine.clock import now, parse_rfc3339
from proa.engine.filters import match_labels, until_time
from proa.engine.network_records import NetworkRecord, NetworkRequest, NetworkStore, Pool
from proa.engine.network_requests import bridge_spec, new_record
from proa.errors import Conflict, Denied, Invalid, NotFound, ProaError
from proa.network import BridgeNetwork, Fabric
from proa.network.addresses import DEFAULT_POOLS
from proa.network.records import forget_subnets
from proa.network.slave import SlaveNetwork

if TYPE_CHECKING:
    from proa.engine.engine import Engine

__all__ = ["BRIDGE", "PREDEFINED", "Driver", "Networks"]

log = logging.getLogger(__name__)
BRIDGE = "bridge"
PREDEFINED = (BRIDGE, "host", "none")

Driver = BridgeNetwork | SlaveNetwork


class Networks:
    """The networks of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._created = now()
        self._store = NetworkStore(engine.root)
        self._fabric = Fabric(engine.root, engine.run / "network", engine.relay)
        self._records = {name: self._predefined(name) for name in PREDEFINED}
        self._drivers: dict[str, Driver] = {}
        records, self._damaged = self._store.load()
        for record in [self._records[BRIDGE], *records]:
            self._records[record.name] = record
            self._drivers[record.name] = self._driver_of(record)

    def _predefined(self, name: str) -> NetworkRecord:
        identity = hashlib.sha256(f"{self._engine.id}/{name}".encode()).hexdigest()
        driver = "null" if name == "none" else name
        return NetworkRecord(name=name, id=identity, driver=driver, created=self._created)

    def _driver_of(self, record: NetworkRecord) -> Driver:
        spec = bridge_spec(record, self._engine.config.publish_address)
        if record.driver == BRIDGE:
            pools = [IPv4Network(pool) for pool in self._engine.config.address_pools]
            return BridgeNetwork(self._fabric, spec, pools=pools or DEFAULT_POOLS)
        return SlaveNetwork(self._fabric, spec, record.driver, record.options)

    # -- what users do -------------------------------------------------------------------------------------------------

    def create(self, request: NetworkRequest) -> NetworkRecord:
        """Make a network, in the kernel too. Raises Conflict for a taken name or subnet, Invalid, Denied, Unsupported.

        A failure leaves nothing; what is returned survives power loss.
        """
        record = new_record(request)
        with self._lock:
            if record.name in self._records:
                raise Conflict(
                    f"network with name {record.name} already exists", code="network-name-in-use", subject=record.name
                )
            driver = self._driver_of(record)
            try:
                driver.ensure(new=True)
                known = {pool.subnet for pool in record.pools}
                gateways = driver.gateways()
                for subnet in driver.subnets():
                    if str(subnet) not in known:
                        record.pools.append(Pool(subnet=str(subnet), gateway=gateways.get(subnet.version, "")))
                driver.spec = bridge_spec(record, self._engine.config.publish_address)
                self._store.save(record)
                forget_subnets(self._engine.root, record.id)
            except BaseException:
                driver.destroy()
                self._forget(record)
                raise
            self._records[record.name] = record
            self._drivers[record.name] = driver
        self._announce("create", record)
        return record

    def list(self) -> builtins.list[NetworkRecord]:
        """All networks with the containers in them."""
        with self._lock:
            records = builtins.list(self._records.values())
        return [self._shown(record) for record in records]

    def get(self, name_or_id: str) -> NetworkRecord:
        """One network with the containers in it. Raises NotFound with Docker's words, Invalid."""
        return self._shown(self.find(name_or_id))

    def find(self, name_or_id: str) -> NetworkRecord:
        """The record: by full id, then name, then unique id prefix. Raises NotFound, Invalid when it is ambiguous."""
        with self._lock:
            records = builtins.list(self._records.values())
        exact = [r for r in records if r.id == name_or_id] or [r for r in records if r.name == name_or_id]
        if exact:
            return exact[0]
        matches = [r for r in records if name_or_id and r.id.startswith(name_or_id)]
        if len(matches) > 1:
            raise Invalid(
                f"network {name_or_id} is ambiguous ({len(matches)} matches found based on ID prefix)",
                code="ambiguous-id",
            )
        if not matches:
            raise NotFound(f"network {name_or_id} not found", code="network-not-found", subject=name_or_id)
        return matches[0]

    def remove(self, name_or_id: str) -> None:
        """Remove a network. Raises NotFound, Denied for a predefined one or one that running containers are in."""
        with self._lock:
            record = self.find(name_or_id)
            if not record.user_defined:
                raise Denied(f"{record.name} is a pre-defined network and cannot be removed", code="network-predefined")
            users = self._shown(record).containers
            if users:
                named = " ".join(
                    f'name:"{self._engine.catalog.find(container).record.name}" id:"{place.endpoint_id[:12]}"'
                    for container, place in users.items()
                )
                raise Denied(
                    f"error while removing network: network {record.name} has active endpoints ({named})",
                    code="network-in-use",
                    subject=record.name,
                    hint="stop its containers, or disconnect them",
                )
            self._drivers[record.name].destroy()
            self._store.delete(record)
            self._forget(record)
        self._announce("destroy", record)

    def _forget(self, record: NetworkRecord) -> None:
        self._records.pop(record.name, None)
        self._drivers.pop(record.name, None)
        self._fabric.members.pop(record.id, None)
        forget_subnets(self._engine.root, record.id)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> builtins.list[str]:
        """Remove user-defined networks that no container, running or not, is to be in; their names.

        filters: until, label, label!. Raises Invalid for others.
        """
        for name in filters or {}:
            if name not in ("until", "label", "label!"):
                raise Invalid(f"invalid filter '{name}'", code="filter-invalid")
        wanted = {name for entry in self._engine.catalog for name in entry.record.networks}
        gone = []
        for record in self.list():
            if record.user_defined and not record.containers and record.name not in wanted and _passes(record, filters):
                try:
                    self.remove(record.id)
                except (Denied, NotFound):  # somebody was quicker
                    continue
                gone.append(record.name)
        return gone

    # -- for the rest of the engine ------------------------------------------------------------------------------------

    def driver(self, name: str) -> Driver:
        """What attaches containers to the network of this name. Raises NotFound."""
        with self._lock:
            if name not in self._drivers:
                raise NotFound(f"network {name} not found", code="network-not-found", subject=name)
            return self._drivers[name]

    def driver_if_any(self, name: str) -> Driver | None:
        """The same; None for `host`, `none` and networks that are gone."""
        with self._lock:
            return self._drivers.get(name)

    def _shown(self, record: NetworkRecord) -> NetworkRecord:
        shown = NetworkRecord(**{name: getattr(record, name) for name in NetworkRecord.__struct_fields__})
        if record.name == BRIDGE:
            driver = self._drivers[BRIDGE]
            gateways = driver.gateways()
            shown.pools = [
                Pool(subnet=str(subnet), gateway=gateways.get(subnet.version, str(subnet.network_address + 1)))
                for subnet in driver.subnets()
            ]
        shown.containers = {
            entry.record.id: settings
            for entry in self._engine.catalog
            if entry.record.state.running
            for settings in entry.record.endpoints
            if settings.network == record.name
        }
        return shown

    def _announce(self, action: str, record: NetworkRecord, **attributes: str) -> None:
        self._engine.events.publish(
            "network", action, record.id, {"name": record.name, "type": record.driver, **attributes}
        )

    def announce(self, action: str, name: str, container: str) -> None:
        """Publish that a container was connected or disconnected."""
        try:
            self._announce(action, self.find(name), container=container)
        except NotFound:
            pass

    def warnings(self) -> builtins.list[str]:
        """What keeps networks from working as asked."""
        with self._lock:
            found = [*(str(damage) for damage in self._damaged), *self._fabric.warnings]
            for driver in self._drivers.values():
                found += driver.warnings
        return found

    def reconcile(self) -> None:
        """Make the kernel agree with the containers that run."""
        live = [e.record.id for e in self._engine.catalog if e.record.state.running]
        with self._lock:
            for name, driver in builtins.list(self._drivers.items()):
                try:
                    driver.reconcile(live)
                except ProaError as error:
                    if name == BRIDGE:
                        raise
                    log.warning("network %s: %s", name, error)
            if not any(member.zone for member in self._fabric.members.values()) and self._fabric.present():
                self._fabric.dissolve()

    def close(self) -> None:
        """Let go; when no container is connected, take the bridges and rules down."""
        running = any(e.record.state.running for e in self._engine.catalog)
        with self._lock, self._fabric.lock:
            if running or any(driver.endpoints() for driver in self._drivers.values()):
                self._fabric.close()
            else:
                self._fabric.dissolve()


def _passes(record: NetworkRecord, filters: Mapping[str, Sequence[str]] | None) -> bool:
    for name, values in (filters or {}).items():
        if name == "until":
            passes = parse_rfc3339(record.created) < until_time(values[0])
        else:
            having = [match_labels(record.labels, [value]) for value in values]
            passes = all(having) if name == "label" else not any(having)
        if not passes:
            return False
    return True
