"""Devices: `--device`, `--device-cgroup-rule`, `--gpus` and what `--privileged` means for them.

A node in /dev and a rule of the device cgroup belong together: without the rule the node cannot be opened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from proa.engine.types import Container, DeviceMapping, HostConfig
from proa.errors import Invalid, Unsupported
from proa.runtime import defaults

# Docker leaves these out of what a privileged container gets: they are the container's own.
_OWN_DIRECTORIES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
_OWN = frozenset({"/dev/console", "/dev/ptmx", *(path for path, _major, _minor in defaults.DEVICES)})
_RULE = re.compile(r"([abc]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})", re.ASCII)
_MAX_DEVICES = 4096


def check_devices(host: HostConfig) -> None:
    """Refuse at create what cannot be. Raises Invalid, Unsupported with Docker's words."""
    for text in host.device_cgroup_rules or []:
        _rule(text)
    for mapping in host.devices or []:
        if not mapping.path_on_host.startswith("/") or not set(mapping.cgroup_permissions) <= set("rwm"):
            raise Invalid(f"invalid device specification: {mapping.path_on_host[:200]}", code="device-invalid")
    for request in host.device_requests or []:
        capabilities = request.get("Capabilities") or []
        words = " ".join("[" + " ".join(str(c) for c in group) + "]" for group in capabilities)
        raise Unsupported(
            f"could not select device driver {_quoted(request.get('Driver'))} with capabilities: [{words}]",
            code="device-driver",
            hint="give the device's nodes with --device, such as --device /dev/dri",
        )


def _quoted(value: object) -> str:
    return '"' + str(value or "")[:80].replace('"', "'") + '"'


def device_nodes(record: Container) -> list[dict[str, Any]]:
    """OCI `linux.devices`: what to make in the container's /dev. Raises Invalid for what is missing or no device."""
    return [node for node, _access in _wanted(record)]


def device_rules(record: Container) -> list[dict[str, Any]]:
    """OCI `linux.resources.devices`. Raises as `device_nodes`, and Invalid for a rule that is none."""
    if record.host.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = defaults.device_rules()
    for node, access in _wanted(record):
        # Init makes the node inside the container's cgroup, so it needs `m` whatever the user asked for.
        rule = {"allow": True, "type": node["type"], "major": node["major"], "minor": node["minor"]}
        rules.append({**rule, "access": access.replace("m", "") + "m"})
    return rules + [_rule(text) for text in record.host.device_cgroup_rules or []]


def _rule(text: str) -> dict[str, Any]:
    match = _RULE.fullmatch(text)
    if match is None or (match[1] == "a" and (match[2], match[3]) != ("*", "*")):
        raise Invalid(
            f"invalid device cgroup rule format: '{text[:100]}'", code="device-rule", hint="write 'c 1:3 rwm'"
        )
    rule: dict[str, Any] = {"allow": True, "type": match[1], "access": match[4]}
    for name, number in (("major", match[2]), ("minor", match[3])):
        if number != "*":
            rule[name] = int(number)
    return rule


def _wanted(record: Container) -> Iterator[tuple[dict[str, Any], str]]:
    """The nodes with the access that was asked for; a directory stands for the devices below it."""
    mappings = list(record.host.devices or [])
    if record.host.privileged:
        mappings.append(DeviceMapping(path_on_host="/dev", path_in_container="/dev"))
    seen = set(_OWN) if record.host.privileged else set()
    for mapping in mappings:
        access = mapping.cgroup_permissions or "rwm"
        target = mapping.path_in_container or mapping.path_on_host
        if not os.path.isdir(mapping.path_on_host):
            found = [(mapping.path_on_host, target)]
        else:
            found = [
                (path, target.rstrip("/") + path[len(mapping.path_on_host.rstrip("/")) :])
                for path in _below(mapping.path_on_host.rstrip("/") or "/")
            ]
        for source, path in found:
            if path not in seen:
                seen.add(path)
                yield _node(source, path), access


def _below(directory: str) -> Iterator[str]:
    count = 0
    for place, directories, names in os.walk(directory):
        directories[:] = sorted(d for d in directories if d not in _OWN_DIRECTORIES)
        for name in sorted(names):
            path = f"{place}/{name}"
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                count += 1
                if count > _MAX_DEVICES:
                    raise Invalid(f"{directory} holds more than {_MAX_DEVICES} devices", code="device-invalid")
                yield path


def _node(source: str, path: str) -> dict[str, Any]:
    try:
        found = os.stat(source)
    except OSError as e:
        raise Invalid(
            f'error gathering device information while adding custom device "{source}": {str(e.strerror).lower()}',
            code="device-missing",
        ) from None
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise Invalid(
            f'error gathering device information while adding custom device "{source}": not a device node',
            code="device-invalid",
        )
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def block_device(path: str) -> dict[str, int]:
    """Major and minor of a block device whose I/O shall be limited. Raises Invalid."""
    try:
        found = os.stat(path)
    except OSError as e:
        raise Invalid(f"no such device: {path[:200]}: {e.strerror}", code="device-missing") from None
    if not stat.S_ISBLK(found.st_mode):
        raise Invalid(f"{path[:200]} is no block device", code="device-invalid")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
