"""The three files that tell a container its names: /etc/hosts, /etc/hostname, /etc/resolv.conf, as pure functions.

Everything that comes from a user is checked before it becomes part of a line: a newline, NUL or blank in a name would
be a line of somebody's choosing (resolver(5), hosts(5)). Raises Invalid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from proa.errors import Invalid

__all__ = [
    "FALLBACK_NAMESERVERS",
    "RESOLVER_ADDRESS",
    "host_line",
    "host_nameservers",
    "host_resolv_conf",
    "render_hostname",
    "render_hosts",
    "render_resolv_conf",
]

FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
# Where containers of networks with names ask for them.
RESOLVER_ADDRESS = "127.0.0.11"

_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_RESOLV_CONF_BYTES = 64 * 1024
_STUB = "127.0.0.53"

_HOSTS_HEAD = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def render_hostname(hostname: str) -> bytes:
    """/etc/hostname."""
    return f"{_name(hostname, 'hostname')}\n".encode()


def render_hosts(
    hostname: str,
    addresses: Sequence[str] = (),
    *,
    domain: str = "",
    extra: Iterable[tuple[str, str]] = (),
    host_gateway: str = "",
) -> bytes:
    """/etc/hosts: localhost, then `extra` (name, address) pairs, then the container's own addresses.

    An extra address `host-gateway` stands for `host_gateway`, an address the host answers on.
    """
    lines = [_HOSTS_HEAD]
    for name, given in extra:
        address = given
        if given == "host-gateway":
            if not host_gateway:
                raise Invalid(
                    f"unable to derive the IP value for host-gateway in {name}", code="host-gateway", subject=name
                )
            address = host_gateway
        lines.append(f"{_address(address)}\t{_name(name, 'host name')}\n")
    lines += [host_line(address, hostname, domain) for address in addresses]
    return "".join(lines).encode()


def host_line(address: str, hostname: str, domain: str = "") -> str:
    """The line of /etc/hosts that names one of the container's own addresses."""
    own = _name(hostname, "hostname")
    names = f"{own}.{_name(domain, 'domain name')} {own}" if domain else own
    return f"{_address(address)}\t{names}\n"


def render_resolv_conf(
    host: bytes,
    *,
    nameservers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    own_namespace: bool = True,
    resolver: bool = False,
) -> bytes:
    """/etc/resolv.conf: the host's, with what the user gave in the place of the host's.

    host: the content of the host's file (see `host_resolv_conf`). own_namespace: name servers on the host's loopback
    are out of reach, so they are left out, and when none remains FALLBACK_NAMESERVERS are used. A search list of `.`
    means none. resolver: the container asks at RESOLVER_ADDRESS, where names without a dot may be containers'.
    """
    host_nameservers, host_search, host_options = _parse_resolv_conf(host)
    servers = [_address(server) for server in nameservers]
    if resolver:
        servers = [RESOLVER_ADDRESS]
    elif not servers:
        servers = host_nameservers
        if own_namespace:
            servers = [server for server in servers if not _is_loopback(server)] or list(FALLBACK_NAMESERVERS)
    domains = [_printable(domain, "search domain") for domain in search] or host_search
    chosen = [_printable(option, "resolver option") for option in options] or host_options
    if resolver and not any(option.startswith("ndots:") for option in chosen):
        chosen = [*chosen, "ndots:0"]
    lines = [f"nameserver {server}\n" for server in servers]
    if domains and domains != ["."]:
        lines.append(f"search {' '.join(domains)}\n")
    if chosen:
        lines.append(f"options {' '.join(chosen)}\n")
    return "".join(lines).encode()


def host_resolv_conf(
    path: Path = Path("/etc/resolv.conf"), resolved: Path = Path("/run/systemd/resolve/resolv.conf")
) -> bytes:
    """The host's resolver file; when it names only systemd-resolved's stub, the file with the servers behind the stub.

    A missing file is an empty one; at most 64 KiB are read.
    """
    content = _read(path)
    if _parse_resolv_conf(content)[0] == [_STUB]:
        content = _read(resolved) or content
    return content


def host_nameservers() -> list[str]:
    """The addresses in the host's resolver file."""
    return _parse_resolv_conf(host_resolv_conf())[0]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_RESOLV_CONF_BYTES)
    except OSError:
        return b""


def _parse_resolv_conf(content: bytes) -> tuple[list[str], list[str], list[str]]:
    """Name servers, search list, options; lines that make no sense are left out, as the resolver does."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in content.decode("ascii", errors="replace").splitlines():
        words = line.split()
        if len(words) < 2 or not all(_PRINTABLE.fullmatch(word) for word in words):
            continue
        keyword, values = words[0], words[1:]
        if keyword == "nameserver" and _is_address(values[0]):
            nameservers.append(values[0])
        elif keyword in {"search", "domain"}:
            search = values
        elif keyword == "options":
            options.extend(values)
    return nameservers, search, options


def _name(value: str, what: str) -> str:
    if not _HOST_NAME.fullmatch(value):
        raise Invalid(f"invalid {what}: {value!r}", code="host-name", subject=value)
    return value


def _printable(value: str, what: str) -> str:
    if not _PRINTABLE.fullmatch(value):
        raise Invalid(f"invalid {what}: {value!r}", code="resolver-setting", subject=value)
    return value


def _address(value: str) -> str:
    if not _is_address(value):
        raise Invalid(f"invalid IP address: {value!r}", code="address-syntax", subject=value)
    return value


def _is_address(value: str) -> bool:
    # Python takes any text as an IPv6 scope id, a newline too.
    if not _PRINTABLE.fullmatch(value):
        return False
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_loopback(value: str) -> bool:
    return ip_address(value).is_loopback
