"""Log drivers: from a container's log options to what takes its output.

json-file, local, cri   a file in the container's directory
journald, syslog        another program, and a local file so that `logs` can tell what was said
none                    nothing
"""

from __future__ import annotations

import os

from proa.errors import Invalid
from proa.monitor.file_log import CriLayout, FileLog, JsonLayout, Layout, open_file
from proa.monitor.logs import LineLog, LineSink, log_path
from proa.monitor.protocol import LogOptions
from proa.monitor.remote_log import JOURNAL_SOCKET, Encoder, RemoteLog, journal_message, syslog_message

__all__ = ["REMOTE", "check_log", "layout_of", "open_log"]

REMOTE = ("journald", "syslog")
_LAYOUTS = {"json-file": "json", "local": "local", "cri": "cri"}


def layout_of(driver: str) -> str:
    """How the file of a driver is named and written: `json`, or the lines of `cri`; empty without one."""
    return "" if driver == "none" else _LAYOUTS.get(driver, "local")


def open_log(options: LogOptions, directory: str, container_id: str) -> LineLog | None:
    """What takes the output of a container; None for nothing."""
    sinks: list[LineSink] = []
    if options.driver in REMOTE:
        sinks.append(RemoteLog(_address(options), _encoder(options)))
    if options.max_file > 0 and (layout := layout_of(options.driver)):
        writes: Layout = JsonLayout(options.attributes) if layout == "json" else CriLayout()
        path = log_path(directory, container_id, layout)
        sinks.append(FileLog(path, writes, options.max_size, options.max_file, compress=options.compress))
    return LineLog(*sinks) if sinks else None


def check_log(options: LogOptions, directory: str, container_id: str) -> None:
    """Refuse a log that could not be written: later the loss of lines would be silent.

    Raises Invalid, Unavailable when nobody receives, OSError.
    """
    if options.driver not in (*_LAYOUTS, *REMOTE, "none"):
        raise Invalid(f"unknown log driver {options.driver}", code="unknown-log-driver", subject=options.driver)
    if options.driver in REMOTE:
        RemoteLog(_address(options), _encoder(options), must_answer=True).close()
    if options.max_file > 0 and (layout := layout_of(options.driver)):
        os.close(open_file(log_path(directory, container_id, layout)))


def _address(options: LogOptions) -> str:
    return options.address or (JOURNAL_SOCKET if options.driver == "journald" else "unixgram:///dev/log")


def _encoder(options: LogOptions) -> Encoder:
    if options.driver == "journald":
        return journal_message(options.attributes)
    return syslog_message(options.format, options.facility, options.tag)
