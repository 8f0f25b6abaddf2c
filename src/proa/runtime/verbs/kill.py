"""kill: send a signal to a container's first process, or to all of its processes."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the package of that name costs an enumeration
import posix

from proa.errors import Conflict, Invalid
from proa.runtime.verbs import records
from proa.runtime.verbs.options import FLAG, Options, Settings
from proa.runtime.verbs.records import Record

__all__ = ["OPTIONS", "run", "signal_number", "signal_process"]

OPTIONS = {"--all": FLAG, "-a": "--all", "--force": FLAG}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb."""
    if len(words) not in (1, 2):
        raise Invalid("a container id and at most one signal are needed", code="usage")
    number = signal_number(words[1]) if len(words) == 2 else int(_signal.SIGTERM)
    directory, record = records.load(settings.root, words[0])
    if options.flag("all"):
        _signal_all(record, number)
        return 0
    status = records.status_of(directory, record)
    if status in ("stopped", "creating"):
        # containerd takes exactly these words for "it has ended already".
        raise Conflict("container not running", code="container-not-running", subject=record.id)
    signal_process(record, number)
    if number == _signal.SIGKILL and status == "paused":
        from proa.runtime.cgroups import in_directories

        in_directories(record.cgroup).thaw()
    return 0


def signal_number(text: str) -> int:
    """The number of a signal given by number or by name, with or without SIG. Raises Invalid."""
    if text.isascii() and text.isdecimal() and int(text[:9]) <= 64:
        return int(text[:9])
    name = text.upper()
    name = name if name.startswith("SIG") else "SIG" + name
    number: int | None = getattr(_signal, name, None)
    if number is None and name.startswith(("SIGRTMIN+", "SIGRTMAX-")) and name[9:].isdecimal():
        offset = int(name[9:][:3])
        number = _signal.SIGRTMIN + offset if name[6:9] == "IN+" else _signal.SIGRTMAX - offset
        number = number if _signal.SIGRTMIN <= number <= _signal.SIGRTMAX else None
    if number is None or name.startswith("SIG_"):
        raise Invalid(f"unknown signal `{text}`", code="unknown-signal", subject=text)
    return int(number)


def signal_process(record: Record, number: int) -> None:
    """Send a signal to the first process and to no other that may have its number by now. Raises Conflict."""
    try:
        pidfd = posix.pidfd_open(record.pid)
    except ProcessLookupError:
        raise Conflict("container not running", code="container-not-running", subject=record.id) from None
    try:
        if not records.alive(record):
            raise Conflict("container not running", code="container-not-running", subject=record.id)
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Conflict("container not running", code="container-not-running", subject=record.id) from None
    finally:
        posix.close(pidfd)


def _signal_all(record: Record, number: int) -> None:
    """Send to every process of the container's cgroup, which may outlive the first one; none left is fine."""
    from proa.runtime.cgroups import in_directories

    if not record.cgroup:
        if records.alive(record):
            signal_process(record, number)
        return
    group = in_directories(record.cgroup)
    if number == _signal.SIGKILL:
        group.kill()
        return
    for pid in group.pids():
        try:
            posix.kill(pid, number)
        except ProcessLookupError:
            pass
