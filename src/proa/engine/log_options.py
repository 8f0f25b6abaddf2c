"""`--log-driver` and `--log-opt`: checked when a container is made, resolved when it starts (moby daemon/logger).

Sizes are as in Docker: 1000 or 1024 bytes by their unit (`10m` is 10 MiB); `-1` is no limit.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from proa.engine.types import Container, LogConfig
from proa.errors import Invalid, Unsupported
from proa.monitor.log_drivers import layout_of
from proa.monitor.logs import log_path
from proa.runtime.sizes import byte_size

__all__ = ["DRIVERS", "FILE_OPTIONS", "check_log_config", "fill_in_log", "log_file", "log_options"]

_NAMES = re.compile(r"\{\{ ?\.([A-Za-z]+) ?\}\}", re.ASCII)
_FIELD = re.compile(r"[^A-Z0-9_]", re.ASCII)
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)

_WAYS = frozenset(("mode", "max-buffer-size"))
_SELECTION = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_FILES = frozenset(("max-size", "max-file", "compress"))
_CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
_SYSLOG = frozenset(("syslog-address", "syslog-facility", "syslog-format"))
_TLS = frozenset(("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"))

#: The options of each driver besides those of `_WAYS`.
DRIVERS: dict[str, frozenset[str]] = {
    "json-file": _FILES | _SELECTION,
    "local": _FILES,
    "cri": _FILES,
    "none": frozenset(),
    "journald": _SELECTION | _CACHE,
    "syslog": _SELECTION | _CACHE | _SYSLOG | _TLS,
}
#: What says how a container's own file is written, and nothing else.
FILE_OPTIONS = DRIVERS["json-file"] | _WAYS
# Bytes a file, files: of the file that is a driver's log, or another one's cache for `logs`.
_DEFAULTS = {"json-file": (10 << 20, 3), "cri": (10 << 20, 3)}
_LOCAL_DEFAULTS = (20 << 20, 5)


def fill_in_log(config: LogConfig, default: LogConfig) -> None:
    """Write down what leaving driver or options open means: an option of the default's is one of its driver's only."""
    config.type = config.type or default.type
    if config.type == default.type:
        config.config = {**default.config, **config.config}


def check_log_config(config: LogConfig) -> None:
    """Refuse a driver or option that does not exist, or a value that is none. Raises Invalid, in Docker's words."""
    driver = config.type or "json-file"
    options = config.config
    if driver not in DRIVERS:
        raise Invalid(
            f"logger: no log driver named '{driver}' is registered",
            code="log-driver",
            subject=driver,
            hint=f"use one of {', '.join(sorted(DRIVERS))}",
        )
    for key in options:
        if key not in DRIVERS[driver] | _WAYS:
            raise Invalid(f"unknown log opt '{key}' for {driver} log driver", code="log-option", subject=key)
        if key in _TLS:
            raise Unsupported("syslog over TLS is not supported", code="log-option", subject=key)
    if options.get("mode", "blocking") not in ("blocking", "non-blocking"):
        raise Invalid(f"logger: logging mode not supported: {options['mode']}", code="log-option")
    if "max-buffer-size" in options:
        if options.get("mode") != "non-blocking":
            raise Invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'", code="log-option"
            )
        _size(options["max-buffer-size"], "max-buffer-size")
    prefix = "cache-" if driver in ("journald", "syslog") else ""
    max_size, max_file, compress = _file_options(driver, options, prefix)
    if options.get(f"{prefix}compress") is not None and compress and (max_file < 2 or max_size <= 0):
        raise Invalid("compress cannot be true when max-file is less than 2 or max-size is not set", code="log-option")
    for key in ("labels-regex", "env-regex"):
        _pattern(options.get(key, ""), key)
    if driver == "syslog":
        _syslog_address(options.get("syslog-address", ""), resolve=False)
        _facility(options.get("syslog-facility", ""))
        _syslog_format(options)
    _expand(options.get("tag", ""), dict.fromkeys(_TAG_NAMES, ""))


def log_options(record: Container) -> dict[str, Any]:
    """The monitor's log options (`monitor.protocol.LogOptions`) of a container that starts. Raises Invalid."""
    check_log_config(record.host.log_config)
    driver = record.host.log_config.type or "json-file"
    options = record.host.log_config.config
    remote = driver in ("journald", "syslog")
    max_size, max_file, compress = _file_options(driver, options, "cache-" if remote else "")
    attributes = _selected(options, record)
    out: dict[str, Any] = {"driver": driver, "max_size": max_size, "max_file": max_file, "compress": compress}
    if remote and _flag(options.get("cache-disabled", ""), "cache-disabled"):
        out["max_file"] = 0
    names = {name: get(record) for name, get in _TAG_NAMES.items()}
    tag = _expand(options.get("tag", "") or "{{.ID}}", names)
    if driver == "json-file":
        out["attributes"] = {**attributes, **({"tag": tag} if options.get("tag") else {})}
    elif driver == "journald":
        out["attributes"] = {
            "CONTAINER_ID": record.id[:12],
            "CONTAINER_ID_FULL": record.id,
            "CONTAINER_NAME": record.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": record.image_name,
            "SYSLOG_IDENTIFIER": tag,
            **{_field_name(key): value for key, value in attributes.items()},
        }
    elif driver == "syslog":
        out["address"] = _syslog_address(options.get("syslog-address", ""), resolve=True)
        out["facility"] = _facility(options.get("syslog-facility", ""))
        out["format"] = _syslog_format(options)
        out["tag"] = tag
    return out


def log_file(record: Container) -> str:
    """Where others may read the log: cri-dockerd, and what collects files of json-file. Empty for other drivers."""
    layout = layout_of(record.host.log_config.type or "json-file")
    return log_path(record.directory, record.id, layout) if layout in ("json", "cri") else ""


_TAG_NAMES: dict[str, Callable[[Container], str]] = {
    "ID": lambda record: record.id[:12],
    "FullID": lambda record: record.id,
    "Name": lambda record: record.name,
    "ImageID": lambda record: record.image_id.removeprefix("sha256:")[:12],
    "ImageFullID": lambda record: record.image_id,
    "ImageName": lambda record: record.image_name,
    "Command": lambda record: " ".join([record.path, *record.args]),
    "DaemonName": lambda _record: "proa",
}


def _expand(template: str, names: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in names:
            raise Invalid(f"the log tag has no field .{match[1]}", code="log-option", subject=template)
        return names[match[1]]

    text = _NAMES.sub(value, template)
    if "{{" in text or any(ord(c) < 0x20 for c in text):
        raise Invalid(f"cannot read the log tag {template!r}", code="log-option", subject=template)
    return text


def _file_options(driver: str, options: Mapping[str, str], prefix: str) -> tuple[int, int, bool]:
    """Bytes a file, number of files, and whether older ones are compressed."""
    size, count = _DEFAULTS.get(driver, _LOCAL_DEFAULTS)
    if text := options.get(f"{prefix}max-size", ""):
        size = 0 if text == "-1" else _size(text, f"{prefix}max-size")
    if text := options.get(f"{prefix}max-file", ""):
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
            raise Invalid(f"invalid value for {prefix}max-file: {text!r}: want 1 or more", code="log-option")
        count = int(text)
        if count > 1 and size == 0:
            raise Invalid("max-size must be set when max-file is", code="log-option")
    compress = _flag(options.get(f"{prefix}compress", "true"), f"{prefix}compress")
    return size, count, compress


def _size(text: str, key: str) -> int:
    try:
        return byte_size(text)
    except Invalid as error:
        raise Invalid(f"invalid value for {key}: {error.message}", code="log-option") from None


def _flag(text: str, key: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("", "0", "f", "false"):
        return False
    raise Invalid(f"invalid value for {key}: {text!r} is neither true nor false", code="log-option")


def _pattern(text: str, key: str) -> re.Pattern[str] | None:
    if not text:
        return None
    try:
        return re.compile(text[:1000])
    except re.error as error:
        raise Invalid(f"invalid value for {key}: {error}", code="log-option") from None


def _selected(options: Mapping[str, str], record: Container) -> dict[str, str]:
    """The labels and variables that the options ask for."""
    variables = dict(entry.partition("=")[::2] for entry in record.config.env or [])
    out: dict[str, str] = {}
    for kind, values in (("labels", record.config.labels or {}), ("env", variables)):
        names = {name.strip() for name in options.get(kind, "").split(",") if name}
        pattern = _pattern(options.get(f"{kind}-regex", ""), f"{kind}-regex")
        chosen = [n for n in values if n in names or (pattern is not None and pattern.search(n))]
        out |= {name: values[name] for name in chosen}
    return out


def _field_name(name: str) -> str:
    """A label's or variable's name as a field of the journal."""
    return _FIELD.sub("_", name.upper()).lstrip("_")[:64] or "X"


def _facility(text: str) -> int:
    if not text:
        return _FACILITIES.index("daemon")
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(_FACILITIES):
        return int(text)
    raise Invalid(f"invalid syslog facility: {text}", code="log-option")


def _syslog_format(options: Mapping[str, str]) -> str:
    text = options.get("syslog-format", "")
    if text not in ("", "rfc3164", "rfc5424", "rfc5424micro"):
        raise Invalid(f"Invalid syslog format: {text}", code="log-option")
    local = not options.get("syslog-address") or options["syslog-address"].startswith("unix")
    return text or ("unix" if local else "rfc3164")


def _syslog_address(text: str, *, resolve: bool) -> str:
    """The receiver, with a numeric host when `resolve`: who sends must not ask name services."""
    if not text:
        return ""
    parts = urlsplit(text)
    if parts.scheme in ("unix", "unixgram"):
        path = text.partition("://")[2]
        if not os.path.isabs(path) or len(os.fsencode(path)) > 107:
            raise Invalid(f"syslog-address should be an absolute path: {text!r}", code="log-option")
        return text
    if parts.scheme == "tcp+tls":
        raise Unsupported("syslog over TLS is not supported", code="log-option", subject=text)
    try:
        host, port = parts.hostname, parts.port or 514
    except ValueError:
        host, port = None, 0
    if parts.scheme not in ("udp", "tcp") or not host:
        raise Invalid(f"syslog-address should be in form proto://address, got {text}", code="log-option", subject=text)
    if not resolve:
        return text
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise Invalid(f"syslog-address {text}: {error}", code="log-option", subject=text) from None
    return f"{parts.scheme}://[{address}]:{port}" if ":" in str(address) else f"{parts.scheme}://{address}:{port}"
