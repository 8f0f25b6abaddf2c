"""A bundle's config.json as `compile_plan` takes it: paths made absolute, and with what the specification adds.

A config that contradicts itself is refused later, by the plan; here only what belongs to the command line is decided.
"""

from __future__ import annotations

import os
import posixpath

from proa.errors import Invalid, Unsupported
from proa.runtime import defaults
from proa.runtime.mount_options import known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["prepare", "prepare_process"]

# Others are a file system's own.
_MOUNT_OPTIONS = frozenset(known())
_BINDS = ("bind", "rbind", "none", "")


def prepare(document: Any, bundle: str, warn: Callable[[str], None]) -> dict[str, Any]:
    """Return the config for `compile_plan`. warn: told what is not done as asked, as the specification wants.

    Annotations and fields that are extensions of proa's own are dropped: whoever writes the annotations of a pod has
    no say in how it is confined (CVE-2024-3154). Raises Invalid, Unsupported.
    """
    if not isinstance(document, dict):
        raise Invalid("config.json is not an object", code="invalid-config")
    config: dict[str, Any] = document
    _check_version(config.get("ociVersion"))
    for name, kind in (("root", dict), ("linux", dict), ("mounts", list), ("annotations", dict), ("process", dict)):
        if not isinstance(config.setdefault(name, kind()), kind):
            raise Invalid(f"{name} of config.json has the wrong type", code="invalid-config", subject=name)
    for platform in ("windows", "solaris", "vm", "zos"):
        if config.get(platform):
            raise Unsupported(
                f"config.json asks for {platform}, which proa does not support", code="unsupported-config"
            )
    config["annotations"] = {key: value for key, value in config["annotations"].items() if not key.startswith("proa.")}
    config["process"] = prepare_process(config["process"], warn)
    config["root"]["path"] = _root(config["root"], bundle)
    config["mounts"] = [_mount(mount, bundle, warn) for mount in config["mounts"]]
    linux = config["linux"]
    resources = linux["resources"] = dict(linux.get("resources") or {})
    # As runc does: callers name what they add, and rely on the runtime for the devices that every container has.
    resources["devices"] = [*(resources.get("devices") or ()), *_default_rules()]
    return config


def prepare_process(process: Any, warn: Callable[[str], None]) -> dict[str, Any]:
    """The `process` object, of a config or given to exec."""
    if not isinstance(process, dict):
        raise Invalid("the process is not an object", code="invalid-config")
    copy: dict[str, Any] = dict(process)
    user = copy.get("user")
    if isinstance(user, dict):
        # Names are a matter of other platforms, and of proa's engine.
        copy["user"] = {key: value for key, value in user.items() if key not in ("username", "additionalGroups")}
    sets = copy.get("capabilities")
    if isinstance(sets, dict):
        found = {name: _known(names, warn) for name, names in sets.items()}
        copy["capabilities"] = _possible(found, warn)
        held = _held()
        for number, name in enumerate(defaults.ALL_CAPABILITIES):
            if name in (found.get("permitted") or ()) and not held >> number & 1:
                warn(f"capability {name} is not given, as this process lacks it")
    return copy


def _held() -> int:
    """Capabilities that this process has."""
    with open("/proc/self/status", "rb") as status:
        return next((int(line.split()[1], 16) for line in status if line.startswith(b"CapPrm:")), 0)


def _known(names: Any, warn: Callable[[str], None]) -> Any:
    if not isinstance(names, list):
        return names
    for name in names:
        if name not in defaults.CAPABILITY_NUMBERS:
            warn(f"capability {name} is unknown and is not given")
    return [name for name in names if name in defaults.CAPABILITY_NUMBERS]


def _possible(sets: dict[str, Any], warn: Callable[[str], None]) -> dict[str, Any]:
    """The sets without what the kernel never grants (capabilities(7))."""
    needs = {"effective": ("permitted",), "ambient": ("permitted", "inheritable")}
    for name, others in needs.items():
        for capability in list(sets.get(name) or ()):
            missing = [other for other in others if capability not in (sets.get(other) or ())]
            if missing:
                sets[name].remove(capability)
                warn(f"capability {capability} is not {missing[0]} and so cannot be {name}")
    return sets


def _check_version(version: Any) -> None:
    if not isinstance(version, str):
        raise Invalid("config.json has no ociVersion", code="invalid-config", subject="ociVersion")
    numbers = version.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise Invalid(f"ociVersion `{version}` is not a version", code="invalid-config", subject="ociVersion")
    if numbers[0] != "1":
        text = f"ociVersion {version} is not supported, 1.0.0 to 1.2 are"
        raise Unsupported(text, code="unsupported-config", subject="ociVersion")


def _root(root: dict[str, Any], bundle: str) -> str:
    path = root.get("path")
    if not isinstance(path, str) or not path or "\0" in path:
        raise Invalid("root.path is missing in config.json", code="invalid-config", subject="root.path")
    path = posixpath.normpath(posixpath.join(bundle, path))
    if not os.path.isdir(path):
        raise Invalid(f"root file system {path} is not a directory", code="invalid-rootfs", subject=path)
    return path


def _mount(mount: Any, bundle: str, warn: Callable[[str], None]) -> Any:
    if not isinstance(mount, dict) or not isinstance(mount.get("destination"), str):
        return mount  # refused by its type
    mount = dict(mount)
    destination = mount["destination"]
    if not destination.startswith("/"):
        warn(f"mount destination {destination} is not absolute")
    # Two slashes at the start are a name of their own in POSIX.
    mount["destination"] = posixpath.normpath("/" + destination.lstrip("/")) if ".." not in destination else destination
    mount["options"] = list(mount.get("options") or ())
    bind = not {"bind", "rbind"}.isdisjoint(mount["options"]) or mount.get("type", "") in _BINDS
    mount["type"] = mount.get("type") or "bind"
    if bind:
        mount["source"] = posixpath.join(bundle, str(mount.get("source", "")))
        for option in [option for option in mount["options"] if option not in _MOUNT_OPTIONS]:
            if isinstance(option, str):
                mount["options"].remove(option)
                warn(f"option {option} is none of a bind mount ({destination})")
    return mount


def _default_rules() -> list[dict[str, Any]]:
    """The devices of every container; nodes of others may be made, as with runc, but not used."""
    making = [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    return [*making, *(rule for rule in defaults.device_rules() if rule["allow"])]
