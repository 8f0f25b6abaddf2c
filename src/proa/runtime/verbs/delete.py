"""delete: remove a container that has ended, or with --force any."""

from __future__ import annotations

import posix

from proa.errors import Conflict, Invalid, NotFound
from proa.runtime.verbs import records
from proa.runtime.verbs.options import FLAG, Options, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.runtime.verbs.records import Record

__all__ = ["OPTIONS", "delete", "run"]

OPTIONS = {"--force": FLAG, "-f": "--force"}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb."""
    if len(words) != 1:
        raise Invalid("one container id is needed", code="usage")
    delete(settings, words[0], force=options.flag("force"))
    return 0


def delete(settings: Settings, container_id: str, *, force: bool) -> None:
    """Remove a container's cgroup and files, then run its poststop hooks.

    force: end it first if need be, remove one whose creation was cut off, and be content when there is none. Raises
    NotFound, Conflict.
    """
    try:
        directory, record = records.load(settings.root, container_id)
    except NotFound:
        if force:
            return
        raise
    except Conflict:
        if not force:
            raise
        records.remove(f"{settings.root}/{container_id}")  # nothing had been made yet but files
        return
    status = records.status_of(directory, record)
    if status != "stopped":
        if not force:
            text = f"cannot delete container {container_id} that is not stopped: it is {status}"
            raise Conflict(text, code="container-not-stopped", subject=container_id)
        _end(record)
    _remove_cgroup(record)
    records.remove(directory)
    if record.hooks["poststop"]:
        from proa.runtime.verbs.hooks import run_all

        run_all(settings, "poststop", record, "stopped")


def _end(record: Record) -> None:
    """Kill everything of the container and wait for its first process to be gone."""
    import _signal  # type: ignore[import-not-found]
    import select

    from proa.runtime.verbs.kill import signal_process

    try:
        pidfd = posix.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if not records.alive(record):
            return
        signal_process(record, _signal.SIGKILL)
        if record.cgroup:
            from proa.runtime.cgroups import in_directories

            in_directories(record.cgroup).kill()  # it also thaws what is paused
        gone = select.poll()
        gone.register(pidfd, select.POLLIN)
        gone.poll(10_000)
    except Conflict:
        pass  # it ended by itself meanwhile
    finally:
        posix.close(pidfd)


def _remove_cgroup(record: Record) -> None:
    busy = False
    for directory in record.cgroup.values():
        try:
            posix.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            busy = True  # cgroups made inside it, or processes
    if not busy:
        return
    from proa.runtime.cgroups import control_files

    if any(control_files.pids(directory) for directory in record.cgroup.values()):
        # Without a pid namespace of its own a container's processes outlive its first one.
        from proa.runtime.cgroups import in_directories

        in_directories(record.cgroup).kill()
    for directory in record.cgroup.values():
        control_files.remove(directory, 10.0)
