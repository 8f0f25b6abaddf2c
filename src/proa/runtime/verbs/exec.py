"""exec: run one more program in a created or running container."""

from __future__ import annotations

import os

from proa.errors import Conflict, Invalid
from proa.runtime.cgroups import in_directories
from proa.runtime.launching import Process, Stdio, launch_exec
from proa.runtime.verbs import documents, foreground, log, records
from proa.runtime.verbs.console import pass_console
from proa.runtime.verbs.create import add_listen_fds, kept_fds
from proa.runtime.verbs.notify import pass_listener
from proa.runtime.verbs.options import FLAG, LIST, VALUE, Options, Settings, integer
from proa.runtime.verbs.preparing import prepare_process
from proa.runtime.verbs.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["OPTIONS", "run"]

OPTIONS = {
    "--process": VALUE,
    "-p": "--process",
    "--detach": FLAG,
    "-d": "--detach",
    "--pid-file": VALUE,
    "--console-socket": VALUE,
    "--pidfd-socket": VALUE,
    "--preserve-fds": VALUE,
    "--tty": FLAG,
    "-t": "--tty",
    "--cwd": VALUE,
    "--env": LIST,
    "-e": "--env",
    "--user": VALUE,
    "-u": "--user",
    "--additional-gids": LIST,
    "-g": "--additional-gids",
    "--cap": LIST,
    "-c": "--cap",
    "--no-new-privs": FLAG,
    "--apparmor": VALUE,
    "--process-label": VALUE,
    "--ignore-paused": FLAG,
    "--no-subreaper": FLAG,
}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb: returns the program's exit status, or 0 with --detach."""
    if not words:
        raise Invalid("a container id is needed", code="usage")
    kept = kept_fds(options)
    os.closerange(3 + kept, 1 << 20)
    directory, record = records.load(settings.root, words[0])
    _check_status(directory, record, ignore_paused=options.flag("ignore-paused"))
    config = documents.read_document(f"{directory}/{records.CONFIG}")

    def warn(text: str) -> None:
        log.warn(settings, text)

    wanted = prepare_process(_process(options, config["process"], words[1:]), warn)
    add_listen_fds(wanted, kept)
    detach = options.flag("detach")
    socket_path = options.value("console-socket")
    terminal = bool(wanted.get("terminal"))
    if terminal and detach and not socket_path:
        raise Invalid("a detached program with a terminal needs --console-socket", code="no-console-socket")
    if not detach:
        foreground.hold_signals()
    process = _launch(record, config, wanted, terminal=terminal, kept=kept)
    for text in process.warnings:
        warn(text)
    if process.console_fd is not None and socket_path:
        pass_console(socket_path, process.console_fd)
        process = process._replace(console_fd=None)
    if path := options.value("pidfd-socket"):
        pass_console(path, process.pidfd, close=False)
    if path := options.value("pid-file"):
        documents.write_text(path, str(process.pid), 0o644)
    return 0 if detach else foreground.follow(process)


def _check_status(directory: str, record: Record, *, ignore_paused: bool) -> None:
    status = records.status_of(directory, record)
    if status == "paused" and not ignore_paused:
        text = f"cannot exec in container {record.id}: it is paused (--ignore-paused waits until it goes on)"
        raise Conflict(text, code="container-paused", subject=record.id)
    if status in ("stopped", "creating"):
        text = f"cannot exec in container {record.id}: container not running"
        raise Conflict(text, code="container-not-running", subject=record.id)


def _process(options: Options, default: dict[str, Any], command: list[str]) -> dict[str, Any]:
    """What to run: a file, or the container's own process with another command and what options change."""
    if path := options.value("process"):
        given = documents.read_document(path)
        if not isinstance(given, dict):
            raise Invalid(f"{path} is not a process", code="invalid-config", subject=path)
        return given
    if not command:
        raise Invalid("a command or --process is needed", code="usage")
    process = {**default, "args": command, "terminal": options.flag("tty")}
    process["env"] = [*(process.get("env") or ()), *options.values("env")]
    if cwd := options.value("cwd"):
        process["cwd"] = cwd
    user = dict(process.get("user") or {})
    if wanted := options.value("user"):
        uid, _colon, gid = wanted.partition(":")
        user.update(uid=integer(uid, "--user"), gid=integer(gid or "0", "--user"))
        user.pop("additionalGids", None)
    if gids := options.values("additional-gids"):
        user["additionalGids"] = [*user.get("additionalGids", ()), *(integer(gid, "--additional-gids") for gid in gids)]
    process["user"] = user
    if names := options.values("cap"):
        sets: dict[str, list[str]] = {k: list(v) for k, v in (process.get("capabilities") or {}).items()}
        for kind in ("bounding", "effective", "permitted"):  # never inheritable (CVE-2022-29162)
            sets[kind] = [*sets.get(kind, ()), *(name for name in names if name not in sets.get(kind, ()))]
        process["capabilities"] = sets
    if options.flag("no-new-privs"):
        process["noNewPrivileges"] = True
    if profile := options.value("apparmor"):
        process["apparmorProfile"] = profile
    if label := options.value("process-label"):
        process["selinuxLabel"] = label
    return process


def _launch(record: Record, config: dict[str, Any], wanted: dict[str, Any], *, terminal: bool, kept: int) -> Process:
    pidfd = os.pidfd_open(record.pid)
    try:
        if not records.alive(record):
            text = f"cannot exec in container {record.id}: container not running"
            raise Conflict(text, code="container-not-running", subject=record.id)
        return launch_exec(
            Process(record.pid, pidfd, record.start_time),
            wanted,
            config=config,
            stdio=Stdio() if terminal else Stdio(0, 1, 2),
            cgroup=in_directories(record.cgroup) if record.cgroup else None,
            kept_fds=kept,
            answer=_listener(record),
        )
    finally:
        os.close(pidfd)


def _listener(record: Record) -> Callable[[int, bytes], bytes]:
    return lambda pid, line: pass_listener(line, pid, record)
