"""The engine's configuration file: TOML, read once at the start.

# /etc/proa/proa.toml, or ~/.config/proa/proa.toml for another user than root, or $PROA_CONFIG
compression = "zstd:9"                     # of layers made here when they are pushed; default "gzip"
publish-address = "127.0.0.1"              # where `-p 80:80` listens when it names no address
address-pools = ["10.200.0.0/16"]          # where networks get their IPv4 subnets from
insecure-registries = ["registry.lan:5000", "10.0.0.0/8"]  # certificates unchecked, plain http allowed
certs-dirs = ["/etc/proa/certs.d"]         # directories of HOST/hosts.toml and HOST/*.crt
token-servers = ["auth.lan"]               # may be given credentials of registries on other domains
max-concurrent-downloads = 3               # blobs of one image at a time
max-concurrent-uploads = 5
log-driver = "cri"                         # of containers that name none; default "json-file"

userns-remap = "auto"                      # containers get a user namespace: "auto", or a user of /etc/subuid
userns-range = "1879048192:268435456"      # the ids that "auto" gives away: FIRST:COUNT
default-registry = "registry.lan:5000"     # what a name without a registry means
[short-names]
"fedora" = "registry.fedoraproject.org/fedora"

[log-opts]                                 # the driver's options, of containers that do not say otherwise
max-size = "50m"

[registry-mirrors]
"docker.io" = ["mirror.lan:5000"]          # asked first, in order

[limits]                                   # what input may cost, see proa.storage.Limits
layer-bytes = 10_000_000_000

[proxies]                                  # default: HTTPS_PROXY, HTTP_PROXY, NO_PROXY
https = "http://proxy.lan:3128"

[tcp]                                      # listen there too, with mutual TLS
address = "192.0.2.7:2376"
tls-ca = "/etc/proa/ca.pem"
tls-cert = "/etc/proa/cert.pem"
tls-key = "/etc/proa/key.pem"
"""

from __future__ import annotations

import os
import tomllib
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from proa.engine.log_options import check_log_config
from proa.engine.types import LogConfig
from proa.engine.userns import check_range
from proa.errors import Invalid
from proa.oci import ShortNames
from proa.oci.reference import DEFAULT_REGISTRY
from proa.storage import Limits
from proa.storage.layers.encoders import parse_compression

if TYPE_CHECKING:
    from proa.transfer import Registries


class Tcp(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """Where the engine listens besides its socket, as the options of `proa system service` say it."""

    address: str
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    without_tls: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a path that depends on where the engine is started."""
        for name in ("tls_ca", "tls_cert", "tls_key"):
            path = getattr(self, name)
            if path and not os.path.isabs(path):
                raise ValueError(f"{path!r} is not an absolute path - at `$.tcp.{name.replace('_', '-')}`")


class Config(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """What an administrator can set."""

    publish_address: str = "0.0.0.0"  # noqa: S104 -- Docker's default
    address_pools: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: dict[str, tuple[str, ...]] = {}
    certs_dirs: tuple[str, ...] = ()
    token_servers: tuple[str, ...] = ()
    max_concurrent_downloads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    max_concurrent_uploads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 5
    proxies: dict[Literal["http", "https", "no"], str] = {}
    default_registry: str = DEFAULT_REGISTRY
    userns_remap: str = ""
    userns_range: str = ""
    aliases: dict[str, str] = msgspec.field(default={}, name="short-names")
    tcp: Tcp | None = None
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}

    @property
    def registries(self) -> Registries:
        """How registries are reached."""
        from proa.transfer.proxies import Proxies
        from proa.transfer.registries import CERTS_DIRS, Registries

        return Registries(
            mirrors=self.registry_mirrors,
            insecure=self.insecure_registries,
            token_servers=self.token_servers,
            certs_dirs=tuple(map(Path, self.certs_dirs)) or CERTS_DIRS,
            proxies=Proxies(**self.proxies),
            downloads=self.max_concurrent_downloads,
            uploads=self.max_concurrent_uploads,
            limits=self.limits,
        )

    limits: Limits = Limits()
    compression: str = "gzip"

    @property
    def default_log(self) -> LogConfig:
        """How containers that do not say it keep their log."""
        return LogConfig(type=self.log_driver, config=self.log_opts)

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
        for pool in config.address_pools:
            IPv4Network(pool)
        config.short_names.check()
        parse_compression(config.compression)
        check_range(config.userns_range)
        check_log_config(config.default_log)
    except FileNotFoundError:
        return Config()
    except Invalid as error:
        raise Invalid(f"configuration file {path} is not valid: {error.message}", code="config-file") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise Invalid(
            f"configuration file {path} is not valid: {error}", code="config-file", subject=str(path)
        ) from None
    return config
