"""Start processes in containers, from a single-threaded monitor.

The child of clone3 is a copy of this process, so everything it will do is loaded and compiled before; from its first
instruction to execve it runs steps and nothing else, cannot import, and is not dumpable, hence cannot be traced by the
container it joins.
"""

from __future__ import annotations

import _socket
import errno
import gc
import os
import select
import sys

from proa.errors import Conflict, Internal, Invalid, ProaError
from proa.linux import mount as m
from proa.linux import process as p
from proa.linux import signals
from proa.linux.sockets import receive_fds, send_fds
from proa.linux.tuples import NamedTuple
from proa.runtime import userns
from proa.runtime.ahead import Ahead
from proa.runtime.channel import Channel, receive
from proa.runtime.init_program import init_program
from proa.runtime.plan import Plan, compile_exec_plan
from proa.runtime.preparing import prepare
from proa.runtime.root import open_directory
from proa.runtime.steps.command import find_program
from proa.runtime.steps.isolation import NAMESPACE_FLAGS, EnterContainer, JoinCgroups, JoinNamespaces, NewSession
from proa.runtime.steps.step import Init, Step
from proa.runtime.users import resolve_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn, Protocol
else:
    Protocol = object

__all__ = ["Joinable", "Launch", "Process", "Stdio", "begin", "launch", "launch_exec", "run_steps", "take_stdio"]

# How long a killed process may take to be gone before we go on without it.
ABANDON_MS = 5000
INIT_DIED = "init-died"


class Stdio(NamedTuple):
    """The standard streams: fds to give, which stay open here. With a plan's `terminal` they are not used."""

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1


class Process(NamedTuple):
    """A started process: `pid` as seen from here, `start_time` in clock ticks since boot, and the pty's master if any.

    warnings: what could not be had and was not essential, for people.
    """

    pid: int
    pidfd: int
    start_time: int
    console_fd: int | None = None
    warnings: tuple[str, ...] = ()


class Launch:
    """A process on its way to its program: who it is, and soon what became of it.

    With `begin(sibling=True)` the process is its creator's sibling: whoever is the parent reaps it.
    """

    __slots__ = ("_channel", "pid", "pidfd", "start_time")

    def __init__(self, pid: int, pidfd: int, channel: _socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_time = p.start_time(pid)
        self._channel = channel

    def outcome(self, answer: Callable[[bytes], bytes] | None = None) -> Process:
        """Wait until execve succeeded; the pidfd is the caller's then. Raises as `launch` does, and as `answer`, which
        is asked when the process has to wait for something done here (`channel.receive`)."""
        try:
            outcome = receive(self._channel, answer=answer)
        finally:
            self._channel.close()
        if outcome.error is None and outcome.ready:
            terminal = outcome.terminal_fd if outcome.terminal_fd >= 0 else None
            return Process(self.pid, self.pidfd, self.start_time, terminal, outcome.warnings)
        if outcome.terminal_fd >= 0:
            os.close(outcome.terminal_fd)
        status = self.abandon()
        if outcome.error is not None:
            raise outcome.error
        raise Internal(
            f"the container's first process ended before it ran the command (status {status})",
            code=INIT_DIED,
            hint="a memory limit too low to start in, or a seccomp profile that kills, does this",
            status=status,
        )

    def abandon(self) -> int:
        """Make sure that the process is gone; its status, if it was ours to collect. Closes every descriptor."""
        self._channel.close()
        if self.pidfd < 0:
            return 0
        pidfd, self.pidfd = self.pidfd, -1
        try:
            p.pidfd_send_signal(pidfd, signals.SIGKILL)
            return (p.waitid(p.P_PIDFD, pidfd, os.WEXITED) or (0, 0, 0))[2]
        except ChildProcessError:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll(ABANDON_MS)  # a sibling
            return 0
        except ProcessLookupError:
            return 0
        finally:
            os.close(pidfd)


class Joinable(Protocol):
    """What of a cgroup a launch needs (`cgroups.Cgroup`)."""

    @property
    def directories(self) -> Mapping[str, str]:
        """Directory of the cgroup by hierarchy: controllers as in /proc/self/cgroup, "" for version 2."""

    def open_join_fds(self) -> tuple[list[int], int | None]:
        """Files to write "0" to (version 1), and the directory to be born in (version 2). The caller closes them."""


def launch(
    plan: Plan,
    *,
    stdio: Stdio,
    cgroup: Joinable | None = None,
    netns_fd: int | None = None,
    userns_fd: int | None = None,
    sibling: bool = False,
) -> Process:
    """Start a container's first process; returns once execve succeeded.

    netns_fd: a network namespace to join; the plan's config must then not ask for a new one.
    userns_fd: a user namespace with the plan's maps, in place of a new one; the network namespace must be its own.
    sibling:  make it a child of this process's parent (CLONE_PARENT), who then has to reap it, also when this raises.
    Raises what the failing step raised, with the step's name in `fields["step"]`: NotFound `command-not-found`, Denied
    `command-not-executable`, … Nothing of the process is left then. Only for single-threaded processes. With a user
    namespace and `sibling` this process is in it afterwards, without the host's privileges.
    """
    launch = begin(plan, stdio=stdio, cgroup=cgroup, netns_fd=netns_fd, userns_fd=userns_fd, sibling=sibling)
    return launch.outcome()


def begin(
    plan: Plan,
    *,
    stdio: Stdio,
    cgroup: Joinable | None = None,
    netns_fd: int | None = None,
    userns_fd: int | None = None,
    sibling: bool = False,
    sharing: bool = False,
    ahead: Ahead | None = None,
) -> Launch:
    """As `launch`, but without waiting for the outcome: `Launch.outcome`, or `Launch.abandon`, must follow.

    sharing: let it share memory with this process until its program runs, where that can be (`vfork`): it runs already,
    or has failed, when this returns; for a process that soon ends. ahead: namespaces that this process has made.
    """
    opened: list[int] = []
    try:
        steps: list[Step] = [NewSession()]
        joins: list[tuple[int, int]] = []
        pid_namespace = -1
        user = -1 if userns_fd is None else userns_fd
        if plan.user is not None and user < 0:
            user = userns.make(plan.user)
            opened.append(user)
        for kind, path in plan.join:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.append(fd)
            if kind == "pid":
                pid_namespace = fd
            elif kind == "user":
                user = fd
            else:
                joins.append((fd, NAMESPACE_FLAGS[kind]))
        flags = plan.namespaces
        if ahead is not None:
            made = ahead.take(plan)
            flags &= ~made
            if made and netns_fd is None:
                joins.append((ahead.netns_fd, p.CLONE_NEWNET))
        if netns_fd is not None:
            joins.append((netns_fd, p.CLONE_NEWNET))
            flags &= ~p.CLONE_NEWNET
        born_in = _prepare_cgroup(cgroup, steps, opened, new_namespace=plan.cgroup_namespace)
        if joins:
            steps.append(JoinNamespaces(joins))
        steps += plan.steps
        directories = cgroup.directories if cgroup is not None else {}
        program = init_program() if plan.below_init else -1
        trees, root_tree = prepare(plan, user, stdio)
        opened += [*trees.values(), *([root_tree] if root_tree >= 0 else [])]

        def make_init(channel: Channel) -> Init:
            init = Init(channel, directories, program)
            init.trees, init.root_tree = trees, root_tree
            return init

        return _start(
            steps,
            flags | (p.CLONE_PARENT if sibling else 0),
            make_init,
            stdio=stdio,
            born_in=born_in,
            pid_namespace=pid_namespace,
            user_namespace=user,
            time_offsets=plan.time_offsets,
            sharing=sharing and plan.can_share and born_in is None and user < 0 and not flags & p.CLONE_NEWTIME,
        )
    finally:
        for fd in opened:
            os.close(fd)


def launch_exec(
    target: Process,
    process_config: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    stdio: Stdio,
    cgroup: Joinable | None = None,
    sibling: bool = False,
    sharing: bool = False,
    kept_fds: int = 0,
    answer: Callable[[int, bytes], bytes] | None = None,
) -> Process:
    """Start one more process in the running container of `target`, whose OCI config was `config`.

    The process is born in the container's pid namespace, enters its cgroups and, by pidfd, all its other namespaces. It
    is a child of the caller and must be waited for: the container's first process cannot end before it is collected.
    sharing: let it share memory with this process until its program runs, where that can be (`vfork`); for a process
    that soon ends, and without `answer`.
    kept_fds: how many descriptors after the standard streams it inherits. answer: as for `Launch.outcome`, given the
    process's pid, too. Raises as `launch`, and Conflict when the container is not running any more.
    """
    plan = compile_exec_plan(config, process_config, kept_fds=kept_fds)
    opened: list[int] = []
    try:
        steps: list[Step] = [NewSession()]
        try:
            born_in = _prepare_cgroup(cgroup, steps, opened, new_namespace=False)
        except FileNotFoundError:
            raise Conflict("the container's cgroup is gone", code="container-not-running") from None
        steps += plan.early
        steps.append(EnterContainer(target.pidfd, plan.namespaces))
        steps += plan.steps
        launched = _start(
            steps,
            p.CLONE_PARENT if sibling else 0,
            lambda ch: Init(ch, {}),
            stdio=stdio,
            born_in=born_in,
            pid_namespace=target.pidfd,
            sharing=sharing and born_in is None and not plan.namespaces & p.CLONE_NEWTIME,
        )
        if answer is None:
            return launched.outcome()
        return launched.outcome(lambda line: answer(launched.pid, line))
    except (ProcessLookupError, Conflict):
        raise Conflict("the container is not running", code="container-not-running") from None
    except Internal as error:
        # Who is being killed has no namespaces to join any more (ESRCH).
        if error.fields.get("errno") != errno.ESRCH and (error.code != INIT_DIED or not p.is_ending(target.pid)):
            raise
        raise Conflict("the container ended while the command was started", code="container-not-running") from None
    finally:
        for fd in opened:
            os.close(fd)


def _prepare_cgroup(
    cgroup: Joinable | None, steps: list[Step], opened: list[int], *, new_namespace: bool
) -> int | None:
    fds: list[int] = []
    born_in = None
    if cgroup is not None:
        fds, born_in = cgroup.open_join_fds()
        opened += fds
        if born_in is not None:
            opened.append(born_in)
    if fds or new_namespace:
        steps.append(JoinCgroups(fds, new_namespace=new_namespace))
    return born_in


def _start(
    steps: Sequence[Step],
    flags: int,
    make_init: Callable[[Channel], Init],
    *,
    stdio: Stdio,
    born_in: int | None,
    pid_namespace: int,
    user_namespace: int = -1,
    time_offsets: bytes = b"",
    sharing: bool = False,
) -> Launch:
    """clone3 or vfork, and run the steps there. See `userns` for why this process may have to be in the namespace."""
    # One system call; `threading` would add memory and a fork hook to every monitor.
    if os.stat("/proc/self/task").st_nlink != 3:
        raise Internal("processes are started from single-threaded processes only", code="threads-running")
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    own_namespace = own_time = -1
    # Handlers of the monitor must not run in the child: it unblocks signals after resetting them, just before execve.
    mask = signals.pthread_sigmask(signals.SIG_SETMASK, signals.valid_signals())
    dumpable = p.prctl(p.PR_GET_DUMPABLE)
    try:
        p.prctl(p.PR_SET_DUMPABLE, 0)  # inherited: the child is never traceable, not even at birth
        if pid_namespace >= 0:
            own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            p.setns(pid_namespace, p.CLONE_NEWPID)
        if time_offsets:
            # They can be set as long as nobody is in the namespace: this process's next child is the first.
            own_time = os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC)
            p.unshare(p.CLONE_NEWTIME)
            flags &= ~p.CLONE_NEWTIME
            _write_time_offsets(time_offsets)
        try:
            # With CLONE_PARENT the exit signal is this process's own, and none may be given.
            exit_signal = 0 if flags & p.CLONE_PARENT else int(signals.SIGCHLD)
            if sharing:
                from proa.linux.vfork import vfork

                ours.shutdown(_socket.SHUT_WR)  # it must not wait for an answer: this process stands still
                init = make_init(Channel(theirs))
                pid, pidfd = vfork(flags, exit_signal, lambda: run_steps(steps, init, stdio))
            elif user_namespace < 0:
                pid, pidfd = p.clone3(flags, exit_signal=exit_signal, cgroup_fd=born_in)
            elif flags & p.CLONE_PARENT:
                p.setns(user_namespace, p.CLONE_NEWUSER)
                pid, pidfd = p.clone3(flags, exit_signal=0, cgroup_fd=born_in)
            else:
                pid, pidfd = _clone_by_another(flags, user_namespace, born_in)
        except OSError as error:
            if pid_namespace >= 0 and error.errno == 12:  # ENOMEM: the namespace's first process has ended
                raise Conflict("the container is not running", code="container-not-running") from None
            raise
        if pid == 0:
            run_steps(steps, make_init(Channel(theirs)), stdio)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        if own_namespace >= 0:
            _return_to(own_namespace, may_stay=sharing or bool(flags & p.CLONE_PARENT))
            os.close(own_namespace)
        if own_time >= 0:
            p.setns(own_time, p.CLONE_NEWTIME)
            os.close(own_time)
        if dumpable == 1:
            p.prctl(p.PR_SET_DUMPABLE, 1)
        signals.pthread_sigmask(signals.SIG_SETMASK, mask)
    return Launch(pid, pidfd, ours)


def _write_time_offsets(offsets: bytes) -> None:
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, offsets)
    except OSError as error:
        text = f"the clocks' offsets were refused: {error.strerror}"
        raise Invalid(text, code="invalid-config", subject="linux.timeOffsets") from None
    finally:
        os.close(fd)


def _return_to(pid_namespace: int, *, may_stay: bool) -> None:
    """Have children born in this process's own pid namespace again.

    may_stay: a launcher of its own, which has no more children, may be unable to: in the user namespace of an engine
    without privileges the namespace from outside belongs to somebody else.
    """
    try:
        p.setns(pid_namespace, p.CLONE_NEWPID)
    except PermissionError:
        if not may_stay:
            raise


def _clone_by_another(flags: int, user_namespace: int, born_in: int | None) -> tuple[int, int]:
    """clone3 by a child process that enters the user namespace for it; what it clones is this process's child.

    Returns as clone3 does: twice, the second time in the new process.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    between, between_fd = p.clone3(0, exit_signal=int(signals.SIGCHLD))
    if between:
        theirs.close()
        try:
            data, fds = receive_fds(ours, 64, 1)
        finally:
            ours.close()
        p.waitid(p.P_PIDFD, between_fd, os.WEXITED)
        os.close(between_fd)
        if fds:
            return int(data), fds[0]
        raise OSError(int(data or errno.ECHILD), f"clone3: {os.strerror(int(data or errno.ECHILD))}")
    try:
        ours.close()
        p.setns(user_namespace, p.CLONE_NEWUSER)
        pid, pidfd = p.clone3(flags | p.CLONE_PARENT, exit_signal=0, cgroup_fd=born_in)
        if pid == 0:
            theirs.close()
            return 0, -1
        send_fds(theirs, b"%d" % pid, [pidfd])
    except OSError as error:
        theirs.send(b"%d" % (error.errno or errno.EIO))
    os._exit(0)


class _NoImports:
    """A meta path finder that refuses: the container's files must never be taken for modules of ours."""

    @staticmethod
    def find_spec(name: str, *_rest: object) -> NoReturn:
        raise ImportError(f"import of {name} while starting a container")


def _silent(*_args: object) -> None:
    """In place of hooks that would print, and for that open source files."""


def run_steps(steps: Sequence[Step], init: Init, stdio: Stdio | None) -> NoReturn:
    """The child: run the steps, the last of which does not return; on any error tell and end.

    stdio: None when a step does `take_stdio`.
    """
    step: Step | None = None
    try:
        gc.disable()
        sys.meta_path[:] = [_NoImports]
        sys.path[:] = []
        sys.path_hooks[:] = []
        sys.excepthook = sys.unraisablehook = _silent
        signals.set_wakeup_fd(-1)
        p.prctl(p.PR_SET_PDEATHSIG, signals.SIGKILL)
        os.umask(0)
        if stdio is not None:
            take_stdio(init, stdio)
        for step in steps:
            step.execute(init)
        raise Internal("the plan ended without a command", code="no-command")
    except BaseException as error:  # noqa: BLE001 - nothing may leave this function
        init.channel.fail(step.name if step else "starting", step.subject if step else "", error)
    finally:
        os._exit(255)


def take_stdio(init: Init, stdio: Stdio) -> None:
    """Put the given fds on 0, 1, 2; a missing one becomes the null device."""
    wanted = []
    for fd in stdio:
        source = fd if fd >= 0 else os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # Copies above 9 cannot be overwritten by the loop below; the channel may itself sit on 0 to 2.
        wanted.append(_above(source))
    if init.channel.fd <= 2:
        init.channel.fd = _above(init.channel.fd)
    for target, source in enumerate(wanted):
        os.dup2(source, target, inheritable=True)


def _above(fd: int) -> int:
    copy = os.dup(fd)
    while copy <= 9:
        copy = os.dup(copy)
    return copy


def preload() -> None:
    """Load and compile what launches need, for a parent that forks monitors: they then share it."""
    from proa.linux import vfork
    from proa.runtime import cgroups, defaults, seccomp
    from proa.runtime.check import capability_sets
    from proa.runtime.spec import Capabilities, parse_spec

    seccomp.default_filter(capability_sets(Capabilities(bounding=list(defaults.CAPABILITIES))).bounding)
    init_program()
    parse_spec({"process": {"args": ["true"]}, "linux": {}})
    cgroups.in_directories({hierarchy.name: "/" for hierarchy in cgroups.hierarchies()})
    if vfork.available():
        vfork.prepare()


def rehearse_sharing() -> None:
    """Go through a start with `sharing` of nothing, in a process that waits to do so: it takes the page faults."""
    try:
        _start((), 0, lambda ch: Init(ch, {}), stdio=Stdio(), born_in=None, pid_namespace=-1, sharing=True).outcome()
    except Internal:
        pass  # there was no command


def rehearse_steps() -> None:
    """Go through code of the steps that has no effect, on the host's root."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve_user(root, "0")
        os.close(open_directory(root, "/proc/self"))
        find_program("true", "/nowhere:/bin:/usr/bin")
        fs = m.fsopen("tmpfs")
        m.fsconfig_string(fs, "mode", "755")
        os.close(fs)
    except (OSError, ProaError):
        pass  # whatever is odd about this host, a start will find and tell
    finally:
        os.close(root)
