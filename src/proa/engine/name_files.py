"""What a container finds in /etc/hosts, /etc/hostname and /etc/resolv.conf, when it starts and while it runs.

The files live in the container's directory and are bind-mounted, so the container may write them. While it runs they
are changed in place, and only so far as they still are what we wrote: hosts line by line, resolv.conf as a whole.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from proa.engine.types import Container
from proa.network.files import host_line, host_resolv_conf, render_hostname, render_hosts, render_resolv_conf
from proa.storage.records import disk_faults

__all__ = ["files_of", "resolv_conf_of", "rewrite_hosts", "rewrite_resolv_conf"]

HOST_NAME = "host.docker.internal"
_FILE_BYTES = 1 << 20


def files_of(
    record: Container, *, host_gateway: str = "", resolver: bool = False, own_namespace: bool = True
) -> dict[str, bytes]:
    """The three files by destination; notes in the record what resolv.conf was. Raises Invalid for wrong names.

    host_gateway: an address of the host that the container reaches; resolver: names are asked for at 127.0.0.11;
    own_namespace: False when it shares the host's network.
    """
    hostname = record.config.hostname or socket.gethostname()
    extra = extra_hosts(record)
    asked = bool(extra)
    if host_gateway and all(name != HOST_NAME for name, _ in extra):
        extra.append((HOST_NAME, "host-gateway"))
    addresses = [text for e in record.endpoints for text in (e.address, e.address6) if text]
    files = {
        "/etc/hosts": render_hosts(
            hostname,
            addresses,
            domain=record.config.domainname,
            extra=extra,
            host_gateway=host_gateway or "127.0.0.1",
        ),
        "/etc/hostname": render_hostname(hostname),
        "/etc/resolv.conf": resolv_conf_of(record, resolver=resolver, own_namespace=own_namespace),
    }
    if not own_namespace and not asked:
        files["/etc/hosts"] = Path("/etc/hosts").read_bytes()
    record.resolv_conf = _digest(files["/etc/resolv.conf"])
    return files


def extra_hosts(record: Container) -> list[tuple[str, str]]:
    """`--add-host` as pairs of name and address."""
    pairs = []
    for item in record.host.extra_hosts or []:
        name, _, address = item.partition(":" if ":" in item else "=")
        pairs.append((name, address.strip("[]")))
    return pairs


def resolv_conf_of(record: Container, *, resolver: bool, own_namespace: bool = True) -> bytes:
    """/etc/resolv.conf."""
    host = record.host
    return render_resolv_conf(
        host_resolv_conf(),
        nameservers=host.dns or [],
        search=host.dns_search or [],
        options=host.dns_options or [],
        own_namespace=own_namespace,
        resolver=resolver,
    )


def rewrite_hosts(directory: Path, record: Container, gone: Iterable[str], come: Iterable[str]) -> None:
    """Take the lines of addresses out that the container no longer has, and add those of new ones."""
    hostname = record.config.hostname or socket.gethostname()
    domain = record.config.domainname
    dropped = {host_line(address, hostname, domain).encode() for address in gone}
    path = directory / "hosts"
    lines = [line for line in _read(path).splitlines(keepends=True) if line not in dropped]
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    _rewrite(path, b"".join(lines) + b"".join(host_line(address, hostname, domain).encode() for address in come))


def rewrite_resolv_conf(directory: Path, record: Container, *, resolver: bool) -> None:
    """Write resolv.conf anew unless the container has changed it."""
    path = directory / "resolv.conf"
    if _digest(_read(path)) == record.resolv_conf:
        content = resolv_conf_of(record, resolver=resolver)
        record.resolv_conf = _digest(content)
        _rewrite(path, content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(fd, "rb") as file:
        return file.read(_FILE_BYTES)


def _rewrite(path: Path, content: bytes) -> None:
    """In place: the container has this very file mounted."""
    with disk_faults(str(path)):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(fd, content, 0)
            os.ftruncate(fd, len(content))
        finally:
            os.close(fd)
