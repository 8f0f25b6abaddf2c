"""Run lifecycle hooks (runtime-spec config.md, POSIX-platform Hooks)."""

from __future__ import annotations

import os
import select

from proa.errors import Invalid, ProaError, TimedOut
from proa.linux import signals
from proa.linux.tuples import NamedTuple
from proa.runtime.steps.command import restore_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Hook", "run_hook", "run_hooks"]

_OUTPUT_TOLD = 1000


class Hook(NamedTuple):
    """A program to run at a point of a container's life. timeout_s: 0 for as long as it takes."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout_s: int


def run_hooks(kind: str, hooks: Sequence[Hook], state: bytes) -> None:
    """Run hooks in order; the first that fails ends it. Raises as `run_hook`."""
    for hook in hooks:
        run_hook(kind, hook, state)


def run_hook(kind: str, hook: Hook, state: bytes) -> None:
    """Run one hook with the container's state (JSON) as standard input, and wait for it.

    Its environment is what the config says and nothing else. Raises Invalid `hook-failed` with the end of what it
    wrote, and TimedOut, after the hook was killed.
    """
    stdin = os.memfd_create("state")
    output = os.memfd_create("output")
    try:
        os.write(stdin, state)
        os.lseek(stdin, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _become(hook, stdin, output)
        pidfd = os.pidfd_open(pid)
        try:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            in_time = bool(ended.poll(hook.timeout_s * 1000 or None))
            if not in_time:
                signals.pidfd_send_signal(pidfd, signals.SIGKILL)
        finally:
            os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not in_time:
            text = f"{kind} hook {hook.path} took more than {hook.timeout_s} s"
            raise TimedOut(text, code="hook-timed-out", subject=hook.path)
        if status:
            raise _failure(kind, hook, status, output)
    finally:
        os.close(stdin)
        os.close(output)


def _become(hook: Hook, stdin: int, output: int) -> None:
    """In the child: run the program, or end."""
    try:
        for target, source in ((0, stdin), (1, output), (2, output)):
            os.dup2(source, target, inheritable=True)
        restore_signals()
        env = dict(entry.partition("=")[::2] for entry in hook.env)
        os.execve(hook.path, hook.args or (hook.path,), env)  # noqa: S606
    except OSError as error:
        os.write(2, (error.strerror or "").encode())
    finally:
        os._exit(127)


def _failure(kind: str, hook: Hook, status: int, output: int) -> ProaError:
    size = os.fstat(output).st_size
    said = os.pread(output, _OUTPUT_TOLD, max(0, size - _OUTPUT_TOLD)).decode(errors="replace").strip()
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return Invalid(
        f"{kind} hook {hook.path} failed: {how}" + (f": {said}" if said else ""), code="hook-failed", subject=hook.path
    )
