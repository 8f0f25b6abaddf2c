"""What a container may do: capabilities, seccomp, masks, by `--cap-*`, `--security-opt` and `--privileged`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from proa.engine.seccomp_profile import from_docker_profile
from proa.engine.types import HostConfig
from proa.errors import Invalid, Unsupported
from proa.oci import strict_loads
from proa.runtime import defaults

PROFILE_LIMIT = 1 << 20


class Security(msgspec.Struct, kw_only=True):
    """The resolved choices. `seccomp` is "default", "unconfined" or a runtime-spec seccomp object."""

    capabilities: list[str]
    seccomp: str | dict[str, Any] = "default"
    no_new_privileges: bool = False
    masked_paths: list[str] = []
    readonly_paths: list[str] = []


def resolve_security(host: HostConfig) -> Security:
    """Evaluate the options. Raises Invalid for what is malformed, Unsupported for what this host cannot do."""
    security = Security(
        capabilities=_capabilities(host),
        seccomp="unconfined" if host.privileged else "default",
        masked_paths=[] if host.privileged else _given(host.masked_paths, defaults.masked_paths()),
        readonly_paths=[] if host.privileged else _given(host.readonly_paths, defaults.READONLY_PATHS),
    )
    for option in host.security_opt or []:
        # `key=value`; Docker still takes the older `key:value`.
        key, _, value = option.partition("=" if "=" in option else ":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise Invalid(f'invalid --security-opt "{option}"', code="security-opt")
            security.no_new_privileges = value != "false"
        elif key == "seccomp":
            security.seccomp = _seccomp(value, security.capabilities)
        elif key == "systempaths" and value == "unconfined":
            security.masked_paths = []
            security.readonly_paths = []
        elif key == "apparmor":
            if value != "unconfined" and not _apparmor():
                raise Unsupported(
                    f"AppArmor profile {value!r} cannot be applied: AppArmor is not enabled on this host",
                    code="apparmor",
                )
        elif key == "label":
            if value not in ("disable", ""):
                raise Unsupported("SELinux labels are not supported", code="selinux")
        else:
            raise Invalid(f'invalid --security-opt 2: "{option}"', code="security-opt")
    return security


def _given(paths: list[str] | None, default: Sequence[str]) -> list[str]:
    """An empty list means none at all: so the docker command sends `systempaths=unconfined`."""
    return list(default if paths is None else paths)


def check_security(host: HostConfig) -> None:
    """Raise what `resolve_security` would."""
    resolve_security(host)


def _capabilities(host: HostConfig) -> list[str]:
    known = defaults.ALL_CAPABILITIES
    if host.privileged:
        return list(known)

    def normalize(names: list[str] | None) -> list[str]:
        out = []
        for name in names or []:
            wanted = name.upper()
            if wanted != "ALL":
                wanted = wanted if wanted.startswith("CAP_") else f"CAP_{wanted}"
                if wanted not in known:
                    raise Invalid(f'invalid capability: "{name}"', code="capability-unknown")
            out.append(wanted)
        return out

    add, drop = normalize(host.cap_add), normalize(host.cap_drop)
    base = list(known) if "ALL" in add else list(defaults.CAPABILITIES)
    if "ALL" in drop:
        base = [] if "ALL" not in add else base
    keep = [c for c in base if c not in drop]
    return list(dict.fromkeys([*keep, *(c for c in add if c != "ALL")]))


def _seccomp(value: str, capabilities: list[str]) -> str | dict[str, Any]:
    if value in ("unconfined", "default", "builtin"):
        return "default" if value == "builtin" else value
    if not value.startswith("{"):
        raise Invalid("seccomp profile must be JSON, `unconfined` or `builtin`", code="security-opt")
    profile = strict_loads(value.encode(), PROFILE_LIMIT, "seccomp profile")
    return from_docker_profile(profile, capabilities)


def _apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text(encoding="ascii").strip() == "Y"
    except OSError:
        return False
