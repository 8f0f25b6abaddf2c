"""What an administrator has said about registries: mirrors, certificates, who may be spoken to without TLS, proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import msgspec

from proa.errors import Invalid
from proa.storage.limits import Limits
from proa.transfer.hosts import READ, Host, HostsFile, find_hosts_file
from proa.transfer.parallel import JOBS
from proa.transfer.proxies import Proxies
from proa.transfer.tls import Tls, docker_certificates
from proa.transfer.wire import Origin, origin_of

CERTS_DIRS = (Path("/etc/proa/certs.d"), Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))
# Docker Hub's registry is not at the host in its images' names.
_API_HOSTS = {"docker.io": "registry-1.docker.io"}
UPLOADS = 5


class Registries(msgspec.Struct, frozen=True, kw_only=True):
    """How registries are reached.

    mirrors:       registry -> hosts (or http:// and https:// URLs) that are asked before it; they get no credentials
    insecure:      hosts, with or without port, or networks (10.0.0.0/8): certificates are not checked there, and where
                   TLS is not spoken plain http is
    token_servers: hosts that may be given the credentials of other hosts' registries, when those send us there
    certs_dirs:    directories of `HOST[:PORT]/hosts.toml` or `HOST[:PORT]/*.crt`, the first hosts.toml counts
    proxies:       where they are empty, the environment's
    downloads, uploads: blobs of one image that move side by side
    limits:        what their answers may cost
    """

    mirrors: Mapping[str, tuple[str, ...]] = {}
    insecure: tuple[str, ...] = ()
    token_servers: tuple[str, ...] = ()
    certs_dirs: tuple[Path, ...] = CERTS_DIRS
    proxies: Proxies = Proxies()
    downloads: int = JOBS
    uploads: int = UPLOADS
    limits: Limits = Limits()

    def servers(self, registry: str, *, insecure: bool = False, plain_http: bool | None = None) -> list[Host]:
        """Where the registry itself may be, to be tried in order until one answers.

        plain_http: True: http only. False: https only. None: http first on this machine, else https.
        Raises Invalid for what is no host name or a malformed hosts.toml.
        """
        file = find_hosts_file(self.certs_dirs, registry)
        if file and file.server and plain_http is None:
            return [file.server]
        return self._default_servers(registry, plain_http, insecure=insecure, file=file)

    def before(self, registry: str) -> list[list[Host]]:
        """The hosts to ask before the registry itself, each with the origins it may be at.

        Raises Invalid for one that is no host.
        """
        out = []
        for text in self.mirrors.get(registry, ()):
            scheme, mark, host = text.rstrip("/").partition("://")
            plain_http = scheme == "http" if mark else None
            servers = self._default_servers(host if mark else scheme, plain_http)
            out.append([server._replace(capabilities=READ) for server in servers])
        file = find_hosts_file(self.certs_dirs, registry)
        return [*out, *([mirror] for mirror in (file.mirrors if file else ()))]

    def _default_servers(
        self, registry: str, plain_http: bool | None, *, insecure: bool = False, file: HostsFile | None = None
    ) -> list[Host]:
        host = _API_HOSTS.get(registry, registry)
        try:
            secure, plain = origin_of(f"https://{host}/"), origin_of(f"http://{host}/")
        except Invalid:
            raise Invalid(f"invalid registry host {registry[:200]!r}", code="reference-invalid") from None
        tls = file.tls if file else Tls()
        insecure = insecure or self.is_insecure(registry)
        if insecure:
            tls = tls._replace(verify=False)
        headers = file.headers if file else {}
        with_tls, without = Host(secure, tls=tls, headers=headers), Host(plain, headers=headers)
        if plain_http is not None:
            return [without if plain_http else with_tls]
        if secure.is_loopback:
            return [without, with_tls]
        return [with_tls, without] if insecure else [with_tls]

    def tls_of(self, origin: Origin) -> Tls:
        """Certificates that are kept for a host, whoever led to it: Docker's layout."""
        names = [origin.host, f"{origin.host}:{origin.port}"]
        names += [name for name, host in _API_HOSTS.items() if host == origin.host]
        return docker_certificates(self.certs_dirs, names)

    def is_insecure(self, registry: str) -> bool:
        """True for a registry whose certificate is not to be checked."""
        host, _, port = registry.rpartition(":") if not registry.endswith("]") else (registry, "", "")
        host = (host if host and port.isdecimal() else registry).strip("[]")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return registry in self.insecure or host in self.insecure
        return registry in self.insecure or any(_holds(entry, address) for entry in self.insecure)


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
