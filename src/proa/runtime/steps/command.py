"""The last steps: into the working directory, then the user's program."""

from __future__ import annotations

import errno
import os
import stat

from proa.errors import Denied, NotFound
from proa.linux import mount as m
from proa.linux import process as p
from proa.linux import signals
from proa.linux.files import close_range, getcwd
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class CloseFiles(Step):
    """Close everything but the standard streams, descriptors to be kept (3 and up), the sync channel (the next one)
    and the program given as a file (the one after it).

    Close-on-exec is not enough: a working directory or program path below /proc/self/fd is looked up before execve
    takes effect (CVE-2024-21626).
    """

    __slots__ = ("kept",)
    name = "closing files"

    def __init__(self, kept: int = 0) -> None:
        self.kept = kept

    def execute(self, init: Init) -> None:
        place = 3 + self.kept
        first = place + 1
        channel = init.channel
        program = init.program_fd
        if program >= 0:
            # Out of the way first: either target number may be in use by the other.
            program = os.dup(program)
            while program <= first:
                program = os.dup(program)
        if channel.fd != place:
            os.dup2(channel.fd, place, inheritable=False)
            channel.fd = place
        if program >= 0:
            os.dup2(program, first, inheritable=False)
            init.program_fd = first
            first += 1
        close_range(first)
        init.root_fd = init.proc_fd = init.devpts_fd = init.null_fd = -1


class EnterWorkingDirectory(Step):
    """chdir, and check that the directory is inside the root. Tried before and again after becoming the user."""

    __slots__ = ("last_try", "path")
    name = "entering the working directory"

    def __init__(self, path: str, *, last_try: bool) -> None:
        self.path = path
        self.last_try = last_try

    def describe(self) -> str:
        return f"chdir to {self.path}" + (" as the user" if self.last_try else "")

    @property
    def subject(self) -> str:
        return self.path

    def execute(self, init: Init) -> None:
        if not init.cwd_done:
            try:
                os.chdir(self.path)
                init.cwd_done = True
            except PermissionError:
                if self.last_try:
                    raise
                return
            # At once: later a system call filter may not allow it.
            try:
                inside = getcwd().startswith(b"/")
            except FileNotFoundError:
                inside = False
            if not inside:
                text = f"working directory {self.path} is outside the container's root"
                raise Denied(text, code="cwd-outside-root", subject=self.path)


class Execute(Step):
    """Find the program in the container's PATH and become it."""

    __slots__ = ("args", "below_init", "env")
    name = "executing the command"

    def __init__(self, args: Sequence[str], env: Sequence[tuple[str, str]], *, below_init: bool) -> None:
        self.args = tuple(args)
        self.env = tuple(env)
        self.below_init = below_init

    def describe(self) -> str:
        return f"execute {' '.join(self.args)}" + (" below a reaping init" if self.below_init else "")

    @property
    def subject(self) -> str:
        return self.args[0]

    def execute(self, init: Init) -> None:
        env = dict(self.env)
        if "HOME" not in env:
            env["HOME"] = init.home
        program = find_program(self.args[0], env.get("PATH", ""))
        argv = [os.fsencode(argument) for argument in self.args]
        restore_signals()
        p.prctl(p.PR_SET_PDEATHSIG, 0)
        init.channel.ready()
        try:
            if self.below_init:
                flat = [os.fsencode(f"{name}={value}") for name, value in env.items()]
                p.execveat(init.program_fd, "", [b"proa-init", os.fsencode(program), *argv], flat, m.AT_EMPTY_PATH)
            os.execve(program, argv, env)  # noqa: S606
        except OSError as error:
            raise execution_error(self.args[0], error.errno or 0) from None


def restore_signals() -> None:
    """Default action for every signal and none blocked: Python leaves SIGPIPE and SIGXFSZ ignored across exec."""
    for number in signals.valid_signals():
        if signals.getsignal(number) != signals.SIG_DFL and number not in (signals.SIGKILL, signals.SIGSTOP):
            signals.signal(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())


def find_program(name: str, path: str) -> str:
    """The path of a command: itself when it has a slash, else the first executable file of that name in `path`.

    Raises NotFound and Denied in the words Docker's clients choose exit status 127 and 126 by.
    """
    if "/" in name:
        _check(name, name)
        return name
    refused = False
    for directory in path.split(":") if path else ():
        candidate = f"{directory or '.'}/{name}"
        if not candidate.startswith("/"):
            continue  # a relative PATH entry would run what lies in the working directory
        try:
            _check(candidate, name)
        except NotFound:
            continue
        except Denied:
            refused = True
            continue
        return candidate
    if refused:
        raise execution_error(name, errno.EACCES)
    raise NotFound(
        f'exec: "{name}": executable file not found in $PATH',
        code="command-not-found",
        subject=name,
        hint="check the command and the image's PATH",
    )


def _check(path: str, name: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise execution_error(name, error.errno or 0) from None
    if stat.S_ISDIR(status.st_mode):
        raise execution_error(name, errno.EISDIR)
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        raise execution_error(name, errno.EACCES)


def execution_error(name: str, number: int) -> NotFound | Denied:
    """The typed error of an execve that failed with errno `number`."""
    text = os.strerror(number).lower()
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return NotFound(
            f'exec: "{name}": {"no such file or directory" if number == errno.ENOTDIR else text}',
            code="command-not-found",
            subject=name,
            hint="check the command; a script or dynamic program may also miss its interpreter",
            errno=number,
        )
    return Denied(f'exec: "{name}": {text}', code="command-not-executable", subject=name, errno=number)
