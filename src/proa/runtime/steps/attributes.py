"""Attributes that a process takes on before it gives up its privileges: sysctls, limits, scores, keyring."""

from __future__ import annotations

import errno
import os
import resource

from proa.errors import Invalid, Unsupported
from proa.linux import mount as m
from proa.linux.keyring import join_session_keyring
from proa.linux.process import personality
from proa.linux.sched import SCHEDULING_POLICIES, ioprio_set, sched_setattr
from proa.runtime.root import write_proc
from proa.runtime.spec import Scheduler
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _proc(init: Init) -> int:
    """A procfs mount nobody else can reach or mount over: the container's own if we made it, else a new one."""
    if init.proc_fd < 0:
        fs = m.fsopen("proc")
        try:
            m.fsconfig_create(fs)
            init.proc_fd = m.fsmount(fs)
        finally:
            os.close(fs)
    return init.proc_fd


class SetSysctls(Step):
    """Write kernel parameters of the container's namespaces; `optional` ones only where the kernel has them."""

    __slots__ = ("optional", "values")
    name = "setting kernel parameters"

    def __init__(self, values: Mapping[str, str], optional: frozenset[str] = frozenset()) -> None:
        self.values = dict(values)
        self.optional = optional

    def describe(self) -> str:
        return "set " + " ".join(f"{name}={value}" for name, value in self.values.items())

    def execute(self, init: Init) -> None:
        proc = _proc(init)
        for name, value in self.values.items():
            try:
                write_proc(proc, "sys/" + sysctl_path(name), value.encode())
            except FileNotFoundError:
                if name not in self.optional:
                    raise Unsupported(
                        f"this kernel has no parameter {name}", code="no-such-sysctl", subject=name
                    ) from None
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ERANGE):
                    raise
                text = f"the kernel takes no {value!r} for {name}: {os.strerror(error.errno)}"
                raise Invalid(text, code="invalid-sysctl", subject=name) from None


def sysctl_path(name: str) -> str:
    """The path below /proc/sys. As in sysctl(8) the first separator found tells whether `.` or `/` separates."""
    dot, slash = name.find("."), name.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name
    return name.translate(_SWAP)


_SWAP = {ord("."): "/", ord("/"): "."}


class SetLimits(Step):
    """Set resource limits; what may not be raised is set as high as allowed, with a warning."""

    __slots__ = ("limits",)
    name = "setting resource limits"

    def __init__(self, limits: Sequence[tuple[str, int, int, int]]) -> None:
        self.limits = tuple(limits)

    def describe(self) -> str:
        return "limit " + " ".join(f"{name}={soft}:{hard}" for name, _number, soft, hard in self.limits)

    def execute(self, init: Init) -> None:
        for name, number, soft, hard in self.limits:
            try:
                resource.setrlimit(number, (soft, hard))
            except (PermissionError, ValueError):
                # Python reports EPERM of a raised hard limit as ValueError.
                top = resource.getrlimit(number)[1]
                clamped = (_lower(soft, top), _lower(hard, top))
                resource.setrlimit(number, clamped)
                init.channel.warn(f"{name} stays at {clamped[1]}: raising it needs CAP_SYS_RESOURCE")


def _lower(value: int, top: int) -> int:
    return top if top >= 0 and (value < 0 or value > top) else value


class SetOomScore(Step):
    """Set oom_score_adj; a score lower than allowed becomes the lowest allowed, with a warning.

    The first of all steps: the /proc is still the host's own, and the file belongs to who this process still is.
    """

    __slots__ = ("score",)
    name = "setting the out-of-memory score"

    def __init__(self, score: int) -> None:
        self.score = score

    def describe(self) -> str:
        return f"set oom_score_adj to {self.score}"

    def execute(self, init: Init) -> None:
        path = "/proc/self/oom_score_adj"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if int(os.read(fd, 16)) == self.score:
                return
        finally:
            os.close(fd)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"%d" % self.score)
            finally:
                os.close(fd)
        except PermissionError:
            init.channel.warn("oom_score_adj was not lowered: that needs CAP_SYS_RESOURCE")


class JoinKeyring(Step):
    """A session keyring of one's own, so that keys of the host are out of reach."""

    __slots__ = ("keyring",)
    name = "joining a session keyring"

    def __init__(self, keyring: str) -> None:
        self.keyring = keyring

    def execute(self, init: Init) -> None:
        try:
            join_session_keyring(self.keyring.encode())
        except OSError as error:
            if error.errno != 38:  # ENOSYS: a kernel without keys has none to protect
                raise


class SetPersonality(Step):
    """Set the execution domain."""

    __slots__ = ("persona",)
    name = "setting the personality"

    def __init__(self, persona: int) -> None:
        self.persona = persona

    def execute(self, init: Init) -> None:
        personality(self.persona)


class SetScheduler(Step):
    """Set the scheduling policy."""

    __slots__ = ("flags", "policy", "wanted")
    name = "setting the scheduling policy"

    def __init__(self, policy: str, flags: int, wanted: Scheduler) -> None:
        self.policy = policy
        self.flags = flags
        self.wanted = wanted

    def describe(self) -> str:
        return f"schedule as {self.policy}"

    def execute(self, init: Init) -> None:
        wanted = self.wanted
        sched_setattr(
            SCHEDULING_POLICIES[self.policy],
            nice=wanted.nice,
            priority=wanted.priority,
            flags=self.flags,
            runtime=wanted.runtime,
            deadline=wanted.deadline,
            period=wanted.period,
        )


class SetAffinity(Step):
    """Run on some processors only."""

    __slots__ = ("processors",)
    name = "choosing processors"

    def __init__(self, processors: frozenset[int]) -> None:
        self.processors = processors

    def execute(self, init: Init) -> None:
        os.sched_setaffinity(0, self.processors)


class SetIoPriority(Step):
    """Set I/O class and priority."""

    __slots__ = ("io_class", "priority")
    name = "setting the I/O priority"

    def __init__(self, io_class: int, priority: int) -> None:
        self.io_class = io_class
        self.priority = priority

    def execute(self, init: Init) -> None:
        ioprio_set(self.io_class, self.priority)
