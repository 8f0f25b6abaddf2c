"""ps: the processes of a container, as ps(1) shows them on the host."""

from __future__ import annotations

import os
import sys

from proa.errors import Invalid, NotFound, Unsupported
from proa.runtime.cgroups import in_directories
from proa.runtime.verbs import documents, records
from proa.runtime.verbs.options import VALUE, Options, Settings

__all__ = ["OPTIONS", "run"]

OPTIONS = {"--format": VALUE, "-f": "--format"}
# Never searched for, as everything that a runtime runs with privileges.
_PROGRAMS = ("/usr/bin/ps", "/bin/ps")


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb."""
    if not words:
        raise Invalid("a container id is needed", code="usage")
    form = options.value("format", "table")
    if form not in ("table", "json"):
        raise Invalid(f"unknown format `{form}`, there are table and json", code="usage")
    _directory, record = records.load(settings.root, words[0])
    if not record.cgroup:
        raise Unsupported("the container has no cgroup to tell its processes", code="no-cgroup", subject=record.id)
    pids = in_directories(record.cgroup).pids()
    if form == "json":
        sys.stdout.write(documents.encode(pids) + "\n")
        return 0
    lines = _table(words[1:] or ["-ef"])
    if not lines or "PID" not in lines[0].split():
        raise Invalid("ps shows no PID column with these options", code="usage")
    column = lines[0].split().index("PID")
    wanted = {str(pid) for pid in pids}
    shown = [line for line in lines[1:] if len(line.split()) > column and line.split()[column] in wanted]
    sys.stdout.write("".join(line + "\n" for line in (lines[0], *shown)))
    return 0


def _table(options: list[str]) -> list[str]:
    for program in _PROGRAMS:
        if os.path.exists(program):
            output = os.memfd_create("ps")
            try:
                streams = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
                pid = os.posix_spawn(program, [program, *options], {}, file_actions=streams)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                lines = os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace").splitlines()
            finally:
                os.close(output)
            if status:
                raise Invalid("ps: " + " ".join(lines), code="usage")
            return lines
    raise NotFound("there is no ps on this machine", code="no-ps", hint="install procps, or use --format json")
