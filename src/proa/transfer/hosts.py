"""Hosts that answer for a registry, from containerd's `certs.d/REGISTRY/hosts.toml`.

    server = "https://registry-1.docker.io"       # the registry itself; default: the host in its name

    [host."https://mirror.lan:5000"]              # asked before it, in order
      capabilities = ["pull", "resolve"]          # resolve: may say what a tag means; push: gets what is pushed
      ca = "mirror.crt"                           # one file or several; relative to this one
      client = [["mirror.cert", "mirror.key"]]    # or one file that has both
      skip_verify = false
      override_path = false                       # true: the URL's path is the whole of the API's
      [host."https://mirror.lan:5000".header]
        authorization = "Basic …"

What stands before the first table is about the server. The directory's name is the registry's with its port, with `:`
or as `host_port_`; `_default` is for all that have none. One departure from containerd: pushes go to a host before the
registry only when its capabilities name `push`, which there is a default. Source: containerd, docs/hosts.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from proa.errors import Invalid
from proa.transfer.tls import Tls
from proa.transfer.wire import Origin, origin_of

FILE_LIMIT = 1 << 20
ALL = frozenset(("pull", "resolve", "push"))
READ = frozenset(("pull", "resolve"))


class Host(NamedTuple):
    """One server: where its API begins, what it may be used for, and how to speak to it."""

    origin: Origin
    prefix: str = "/v2"
    capabilities: frozenset[str] = ALL
    headers: Mapping[str, str] = {}
    tls: Tls = Tls()


class HostsFile(NamedTuple):
    """A hosts.toml: the registry's own server if the file names one, how to speak to it, and who is asked before."""

    server: Host | None
    tls: Tls
    headers: Mapping[str, str]
    mirrors: tuple[Host, ...]


def find_hosts_file(folders: Iterable[Path], registry: str) -> HostsFile | None:
    """The first there is for a registry in these `certs.d` directories. Raises Invalid for one that is malformed."""
    if re.fullmatch(r"[A-Za-z0-9\[\].:-]+", registry) is None:
        return None
    host, colon, port = registry.rpartition(":")
    names = [registry, *([f"{host}_{port}_"] if colon else [])]
    places = [folder / name for folder in folders for name in names]
    for place in [*places, *(folder / "_default" for folder in folders)]:
        path = place / "hosts.toml"
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise Invalid(f"cannot read {path}: {error.strerror}", code="hosts-file", subject=str(path)) from None
        try:
            if len(raw) > FILE_LIMIT:
                raise ValueError(f"longer than {FILE_LIMIT} bytes")
            return _hosts_file(tomllib.loads(raw.decode("utf-8")), place)
        except (ValueError, Invalid) as error:
            why = error.message if isinstance(error, Invalid) else str(error)
            raise Invalid(f"hosts file {path} is not valid: {why}", code="hosts-file", subject=str(path)) from None
    return None


def _hosts_file(document: dict[str, Any], folder: Path) -> HostsFile:
    tables = document.get("host", {})
    if not isinstance(tables, dict):
        raise ValueError("host is no table")
    mirrors = tuple(_host(url, table, folder, READ) for url, table in tables.items())
    server = document.get("server", "")
    own = _host(server, document, folder, ALL) if server else None
    return HostsFile(own, _tls(document, folder), _headers(document), mirrors)


def _host(url: Any, table: Any, folder: Path, default: frozenset[str]) -> Host:
    if not isinstance(url, str) or not isinstance(table, dict):
        raise ValueError(f"{url!r} is no URL, or what it is given no table")
    if "://" not in url:
        plain = origin_of(f"http://{url}")
        url = f"http{'' if plain.is_loopback or (plain.port == 80 and ':80' in url) else 's'}://{url}"
    origin, path = origin_of(url), urlsplit(url).path.rstrip("/")
    if not _boolean(table, "override_path") and not path.endswith("/v2"):
        path += "/v2"
    return Host(origin, path, _capabilities(table, default), _headers(table), _tls(table, folder))


def _capabilities(table: dict[str, Any], default: frozenset[str]) -> frozenset[str]:
    if "capabilities" not in table:
        return default
    named = _texts(table["capabilities"], "capabilities")
    if unknown := set(named) - ALL:
        raise ValueError(f"unknown capability {min(unknown)!r}")
    return frozenset(named)


def _tls(table: dict[str, Any], folder: Path) -> Tls:
    client = table.get("client", [])
    if isinstance(client, str):
        client = [client]
    if not isinstance(client, list):
        raise ValueError("client is no file, and no list of files or pairs")
    pairs: list[tuple[Path, Path | None]] = []
    for entry in client:
        files = _texts(entry, "client")
        if len(files) not in (1, 2):
            raise ValueError("client has an entry that is no certificate and key")
        pairs.append((folder / files[0], folder / files[1] if files[1:] and files[1] else None))
    authorities = tuple(folder / file for file in _texts(table.get("ca", []), "ca"))
    return Tls(authorities, tuple(pairs), not _boolean(table, "skip_verify"))


def _headers(table: dict[str, Any]) -> dict[str, str]:
    header = table.get("header", {})
    if not isinstance(header, dict):
        raise ValueError("header is no table")
    out = {}
    for name, value in header.items():
        text = ", ".join(_texts(value, f"header {name}"))
        if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) is None or re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError(f"header {name!r} cannot be sent")
        out[name] = text
    return out


def _boolean(table: dict[str, Any], name: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def _texts(value: Any, what: str) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise ValueError(f"{what} is no text, and no list of texts")
    return values
