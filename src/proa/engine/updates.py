"""Updates: change the limits and the restart policy of a container, while it runs or not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from proa.engine.leftovers import cgroup_path
from proa.engine.resources import linux_resources
from proa.engine.restarts import check_policy
from proa.engine.types import HostConfig, UpdateRequest
from proa.errors import Conflict, Invalid, ProaError
from proa.runtime import cgroups

if TYPE_CHECKING:
    from proa.engine.catalog import Entry
    from proa.engine.engine import Engine

log = logging.getLogger(__name__)


class Updates:
    """Live changes of containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def update(self, name_or_id: str, request: UpdateRequest) -> list[str]:
        """Change what the request gives; zero and empty text leave things as they are, as in Docker.

        Returns what the user should know: where an unprivileged engine cannot limit, limits are written down only.

        All or nothing: when the kernel refuses one limit, the earlier ones are put back. Raises NotFound, Invalid,
        Conflict when a container uses more than the new limit allows.
        """
        entry = self._engine.catalog.find(name_or_id)
        with entry.lock:
            record = entry.record
            if entry.removed or record.state.status in ("removing", "dead"):
                raise Conflict(
                    f'Cannot update container {record.id}: container is marked for removal and cannot be "update"',
                    code="removing",
                )
            changed = updated(record.host, request, record.id)
            limits_change = linux_resources(record.host) != linux_resources(changed)
            if record.state.running:
                self._apply(entry, linux_resources(record.host), linux_resources(changed))
            record.host = changed
            if record.state.running:
                self._engine.ooms.watch(entry)
            self._engine.catalog.save(entry)
        self._engine.containers.announce(entry, "update")
        unable = self._engine.abilities.no_limits
        return [unable] if unable and limits_change else []

    def _apply(self, entry: Entry, before: dict[str, Any], after: dict[str, Any]) -> None:
        if before == after:
            return
        path = cgroup_path(self._engine.id, entry.record.id, entry.record.host.cgroup_parent)
        group = cgroups.open_existing(path)
        if group is None:
            return  # it has just ended
        try:
            group.apply(after)
        except ProaError as error:
            try:
                group.apply(before)
            except ProaError as again:
                log.warning("limits of %s could not be put back: %s", entry.record.id, again)
            raise type(error)(
                f"Cannot update container {entry.record.id}: {error.message}",
                code=error.code,
                subject=entry.record.id,
                hint=error.hint,
            ) from None


def updated(host: HostConfig, request: UpdateRequest, id: str = "") -> HostConfig:  # noqa: A002
    """The configuration of container `id` after the change. Raises Invalid with Docker's words."""
    changes = {
        name: value
        for name in UpdateRequest.__struct_fields__
        if name != "restart_policy" and (value := getattr(request, name)) not in (None, 0, "")
    }
    refused = f"Cannot update container {id}"
    _check_conflicts(host, request, refused)
    if request.memory and not request.memory_swap and host.memory_swap:
        if 0 < host.memory_swap < request.memory:
            raise Invalid(
                f"{refused}: Memory limit should be smaller than already set memoryswap limit, "
                "update the memoryswap at the same time",
                code="limit-invalid",
            )
        if request.memory < 0:
            changes["memory_swap"] = -1
    if request.pids_limit == 0:
        changes["pids_limit"] = 0
    policy = request.restart_policy
    if policy is not None and policy.name:
        if host.auto_remove and policy.name != "no":
            raise Invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
                code="restart-policy",
            )
        check_policy(policy, auto_remove=False)
        changes["restart_policy"] = policy
    found = msgspec.structs.replace(host, **changes)
    linux_resources(found)
    return found


def _check_conflicts(host: HostConfig, request: UpdateRequest, refused: str) -> None:
    pairs = (
        ("CPU Period", request.cpu_period, "NanoCPUs", host.nano_cpus),
        ("CPU Quota", request.cpu_quota, "NanoCPUs", host.nano_cpus),
        ("Nano CPUs", request.nano_cpus, "CPU Quota", host.cpu_quota),
        ("Nano CPUs", request.nano_cpus, "CPU Period", host.cpu_period),
    )
    for what, wanted, other, there in pairs:
        if wanted and there:
            raise Invalid(
                f"{refused}: Conflicting options: {what} cannot be updated as {other} has already been set",
                code="limit-invalid",
            )
