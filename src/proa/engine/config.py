"""The engine's configuration file: TOML, read once at the start.

# /etc/proa/proa.toml, or ~/.config/proa/proa.toml for another user than root, or $PROA_CONFIG
publish-address = "127.0.0.1"              # where `-p 80:80` listens when it names no address
insecure-registries = ["registry.lan:5000"]  # plain http and unverified fallbacks allowed

default-registry = "registry.lan:5000"     # what a name without a registry means
[short-names]
"fedora" = "registry.fedoraproject.org/fedora"

[registry-mirrors]
"docker.io" = ["mirror.lan:5000"]          # asked first, in order
"""

from __future__ import annotations

import os
import tomllib
from ipaddress import ip_address
from pathlib import Path

import msgspec

from proa.errors import Invalid
from proa.oci import ShortNames
from proa.oci.reference import DEFAULT_REGISTRY


class Config(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """What an administrator can set."""

    publish_address: str = "0.0.0.0"  # noqa: S104 -- Docker's default
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: dict[str, tuple[str, ...]] = {}
    default_registry: str = DEFAULT_REGISTRY
    aliases: dict[str, str] = msgspec.field(default={}, name="short-names")

    @property
    def short_names(self) -> ShortNames:
        """How names without a registry are read."""
        return ShortNames(default_registry=self.default_registry, aliases=self.aliases)


def config_path() -> Path:
    """Where the file is, whether it exists or not."""
    if named := os.environ.get("PROA_CONFIG"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/etc/proa/proa.toml")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "proa" / "proa.toml"


def load_config(path: Path | None = None) -> Config:
    """Read the file; a missing one is the defaults. Raises Invalid that names file and key."""
    path = path or config_path()
    try:
        with path.open("rb") as f:
            config = msgspec.convert(tomllib.load(f), Config)
        ip_address(config.publish_address)
        config.short_names.check()
    except FileNotFoundError:
        return Config()
    except Invalid as error:
        raise Invalid(f"configuration file {path} is not valid: {error.message}", code="config-file") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise Invalid(
            f"configuration file {path} is not valid: {error}", code="config-file", subject=str(path)
        ) from None
    return config
