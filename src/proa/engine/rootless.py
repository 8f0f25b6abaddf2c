"""An engine of an unprivileged user: root in a user, mount and network namespace that it makes for itself.

    engine, as the user                             holder
    fork -----------------------------------------> unshare(user, mount, network), wait
    newuidmap, newgidmap: himself as 0 and his
    ranges of /etc/subuid after it; or 0 alone
    pasta or slirp4netns attaches to its network
    rootless.json -------------------------------> becomes root, executes `sleep infinity`
    door keeper, which opens published ports here (`proa.relay.door`)
    setns(holder), exec itself again: the same engine as root's from here on

The holder keeps the namespaces for the next engine, whose containers still run in them; the last engine that leaves no
container behind ends it. What cannot be had is not an error but a reason, one line each, for `proa info` and the log.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from proa import errors
from proa.engine.config import config_path
from proa.engine.resources import DEFAULT_PIDS
from proa.engine.types import HostConfig
from proa.engine.userns import read_subordinate
from proa.errors import Internal, Invalid, ProaError, Unsupported
from proa.linux import mount as m
from proa.linux import process as p
from proa.linux.sockets import set_interface_up
from proa.monitor.sealed import import_locations
from proa.runtime import cgroups
from proa.runtime.userns import Mapping
from proa.storage.records import write_record

RECORD = "rootless.json"
LOCK = "rootless.lock"
_NAMESPACES = p.CLONE_NEWUSER | p.CLONE_NEWNS
_TOOL_TIMEOUT_S = 20
# Descriptor of the held lock, across exec.
_LOCK_VARIABLE = "PROA_ROOTLESS_LOCK"
# Descriptor of the channel to the process that opens ports outside, across exec.
_DOORS_VARIABLE = "PROA_ROOTLESS_DOORS"
_DOORS = "import sys;sys.path+=sys.argv[2:];from proa.relay.door import keep_doors;keep_doors(int(sys.argv[1]))"


class Rootless(msgspec.Struct, kw_only=True):
    """The namespaces of an engine that runs as no root.

    holder, holder_start: the process that keeps them; helper, helper_start: the network's, 0 without; network: the tool
    that connects them, empty when nothing does; reasons: what cannot be had, one line each.
    """

    holder: int
    holder_start: int
    boot: str
    helper: int = 0
    helper_start: int = 0
    network: str = ""
    uids: int = 1
    reasons: list[str] = []


class Abilities(msgspec.Struct, kw_only=True):
    """What this engine can do of what root's can.

    rootless: whether it is an unprivileged user's; connected: whether containers can have a network of their own;
    no_limits: why containers cannot be limited, empty when they can; reasons: all that cannot be had, one line each.
    """

    rootless: bool = False
    connected: bool = True
    no_limits: str = ""
    reasons: list[str] = []


def abilities(run: Path, engine_id: str) -> Abilities:
    """Find out. Raises Invalid for a damaged record."""
    if not p.in_user_namespace():
        return Abilities()
    record = load(run)
    out = Abilities(rootless=record is not None, reasons=list(record.reasons) if record else [])
    out.connected = record is None or bool(record.network)
    try:
        cgroups.create(f"/proa/{engine_id}-probe").remove()
    except ProaError as error:
        out.no_limits = f"limits are not enforced, and pausing is not possible: {error.message}"
        out.reasons.append(out.no_limits)
    return out


def limits_asked(host: HostConfig) -> bool:
    """Whether a container is to be limited by more than the defaults."""
    return bool(
        host.memory
        or host.memory_reservation
        or host.nano_cpus
        or host.cpu_quota
        or host.cpu_shares
        or host.cpuset_cpus
        or host.blkio_weight
        or (host.pids_limit or 0) not in (-1, 0, DEFAULT_PIDS)
    )


def load(run: Path) -> Rootless | None:
    """Where this engine is, None when it runs as the machine's root. Raises Invalid for a damaged record."""
    try:
        raw = (run / RECORD).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(raw, type=Rootless)
    except msgspec.DecodeError as error:
        raise Invalid(f"{run / RECORD} is damaged: {error}", code="rootless-record") from None


def enter(run: Path) -> None:
    """Go where this user is root, and begin again; returns at once for root. Raises Unsupported, OSError."""
    if os.geteuid() == 0:
        return
    if not run.is_dir():
        run.mkdir(mode=0o700, parents=True)
    os.environ.setdefault("PROA_CONFIG", str(config_path()))
    lock = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        record = load(run)
    except ProaError:
        record = None
    pidfd = _process(record.holder, record.holder_start) if record and record.boot == _boot_id() else None
    if pidfd is None:
        record, pidfd = _make(run)
    fcntl.flock(lock, fcntl.LOCK_SH)
    if record and record.network:
        _leave_a_keeper_outside()
    p.setns(pidfd, _NAMESPACES | (p.CLONE_NEWNET if record and record.network else 0))
    os.close(pidfd)
    try:
        os.setgroups([])
    except PermissionError:
        pass  # one id alone: groups cannot be changed
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.set_inheritable(lock, True)
    os.environ[_LOCK_VARIABLE] = str(lock)
    # As another program image, whose /proc files belong to this namespace's root and not to the machine's.
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606


def _leave_a_keeper_outside() -> None:
    """Start what opens the doors of published ports where their clients are; it ends with the engine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-X", "utf8", "-c", _DOORS, str(theirs.fileno())),
                *import_locations(errors),
                "proa doors",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    os.set_inheritable(ours.fileno(), True)
    os.environ[_DOORS_VARIABLE] = str(ours.detach())


def keeper_of_doors() -> socket.socket | None:
    """The channel to it, once; None for an engine in the network namespace of its clients."""
    number = os.environ.pop(_DOORS_VARIABLE, "")
    if not number:
        return None
    channel = socket.socket(fileno=int(number))
    channel.set_inheritable(False)
    channel.settimeout(_TOOL_TIMEOUT_S)
    return channel


def leave(run: Path) -> None:
    """End the namespaces, unless another engine has entered them meanwhile; harmless for root."""
    lock = int(os.environ.get(_LOCK_VARIABLE, "-1"))
    record = load(run)
    if record is None or lock < 0:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    (run / RECORD).unlink(missing_ok=True)
    for pid, start in ((record.helper, record.helper_start), (record.holder, record.holder_start)):
        pidfd = _process(pid, start) if pid else None
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def _process(pid: int, start: int) -> int | None:
    """A pidfd of the process that had this pid and began at `start`; None when it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if p.start_time(pid) == start:
            return pidfd
    except OSError:
        pass  # it has just ended
    os.close(pidfd)
    return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _make(run: Path) -> tuple[Rootless, int]:
    """New namespaces, their record and a pidfd of their holder."""
    record = _make_with(run, [])
    if not record.network:
        # A network namespace that nothing connects is worse than the machine's, which containers can at least share.
        os.kill(record.holder, signal.SIGKILL)
        os.waitpid(record.holder, 0)
        record = _make_with(run, record.reasons)
    write_record(run / RECORD, record)
    return record, os.pidfd_open(record.holder)


def _make_with(run: Path, without_network: list[str]) -> Rootless:
    """Namespaces with a network; or, with the reasons why there can be none, without."""
    if os.stat("/proc/self/task").st_nlink != 3:
        raise Internal("namespaces are made before any thread is", code="threads-running")
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _hold(theirs, _NAMESPACES | (0 if without_network else p.CLONE_NEWNET))
    theirs.close()
    with ours:
        ours.settimeout(_TOOL_TIMEOUT_S)
        said = ours.recv(4096)
        if said != b"made":
            os.waitpid(pid, 0)
            raise Unsupported(
                f"an unprivileged engine needs user namespaces: {said.decode(errors='replace') or 'refused'}",
                code="no-user-namespaces",
                hint="see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and "
                "kernel.apparmor_restrict_unprivileged_userns",
            )
        record = Rootless(holder=pid, holder_start=p.start_time(pid), boot=_boot_id())
        try:
            record.uids = _map(pid, record.reasons)
            if without_network:
                record.reasons = without_network
            else:
                _connect(run, pid, record)
            ours.sendall(b"go")
            said = ours.recv(4096)
            if said:
                raise Unsupported(f"the namespaces of the engine cannot be set up: {said.decode(errors='replace')}")
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    return record


def _hold(channel: socket.socket, namespaces: int) -> None:
    """The holder: makes the namespaces, and sleeps in them."""
    try:
        os.setsid()
        p.unshare(namespaces)
        channel.sendall(b"made")
        if channel.recv(2) != b"go":
            os._exit(1)
        try:
            os.setgroups([])
        except PermissionError:
            pass  # one id alone
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
        if namespaces & p.CLONE_NEWNET:
            set_interface_up("lo")
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execve("/bin/sleep", ["sleep", "infinity"], {})  # noqa: S606
    except OSError as error:
        channel.sendall(str(error).encode()[:4000])
    finally:
        os._exit(1)


def _map(pid: int, reasons: list[str]) -> int:
    """Give the namespaces of a process their ids: how many there are."""
    uid, gid = os.getuid(), os.getgid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    counts = []
    refused = ""
    for tool, path, own in (("newuidmap", "/etc/subuid", uid), ("newgidmap", "/etc/subgid", gid)):
        ranges = read_subordinate(path, name, uid)
        if not ranges:
            refused = f"{path} has no range for {name or uid}"
            break
        maps = [Mapping(0, own, 1)]
        for start, count in ranges:
            maps.append(Mapping(maps[-1].inside + maps[-1].size, start, count))
        arguments = [str(number) for mapping in maps for number in mapping]
        refused = _run([f"/usr/bin/{tool}", str(pid), *arguments])
        if refused:
            break
        counts.append(sum(mapping.size for mapping in maps))
    if not refused:
        return min(counts)
    if counts:
        raise Unsupported(f"the user ids could be mapped, the groups not: {refused}", code="rootless-mappings")
    reasons.append(f"only your own id exists in containers: {refused}")
    Path(f"/proc/{pid}/setgroups").write_text("deny", encoding="ascii")
    for file, own in (("uid_map", uid), ("gid_map", gid)):
        Path(f"/proc/{pid}/{file}").write_text(f"0 {own} 1\n", encoding="ascii")
    return 1


def _run(command: list[str]) -> str:
    """Run a program; returns one line of why it failed, empty when it did not."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False, env={}
        )
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
    return f"{os.path.basename(command[0])}: {lines[-1]}"


def _connect(run: Path, pid: int, record: Rootless) -> None:
    """Connect the holder's network namespace to the world, by whatever tool there is."""
    refusals = []
    for name, start in (("pasta", _pasta), ("slirp4netns", _slirp4netns)):
        helper, refused = start(run, pid)
        if helper:
            record.network, record.helper, record.helper_start = name, helper, p.start_time(helper)
            return
        refusals.append(refused)
    record.reasons.append(f"containers have no network: {'; '.join(refusals)}")


def _pasta(run: Path, pid: int) -> tuple[int, str]:
    """Start pasta(1): the world as it is outside, listening ports inside are opened outside, never the reverse.

    Those are ports of containers that share the namespace: published ones listen outside already.
    """
    file = run / "pasta.pid"
    file.unlink(missing_ok=True)
    ports = ("-t", "auto", "-u", "auto", "-T", "none", "-U", "none")
    namespaces = ("--userns", f"/proc/{pid}/ns/user", "--netns", f"/proc/{pid}/ns/net")
    refused = _run(
        ["/usr/bin/pasta", "--config-net", "--quiet", "--no-map-gw", *ports, "--pid", str(file), *namespaces]
    )
    if refused:
        return 0, refused
    try:
        return int(file.read_text(encoding="ascii")), ""
    except (OSError, ValueError):
        return 0, "pasta: it did not say its pid"


def _slirp4netns(run: Path, pid: int) -> tuple[int, str]:
    """Start slirp4netns(1)."""
    reader, writer = os.pipe()
    try:
        with open(run / "slirp4netns.log", "wb") as log:
            helper = subprocess.Popen(
                [
                    "/usr/bin/slirp4netns",
                    *("--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={writer}"),
                    *(f"--userns-path=/proc/{pid}/ns/user", str(pid), "tap0"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                start_new_session=True,
                env={},
            )
    except OSError as error:
        os.close(reader)
        return 0, f"slirp4netns: {error.strerror}"
    finally:
        os.close(writer)
    deadline = time.monotonic() + _TOOL_TIMEOUT_S
    with open(reader, "rb") as ready:
        if ready.read(1) and time.monotonic() < deadline:
            helper.returncode = 0  # not ours to wait for: it outlives this program
            return helper.pid, ""
    helper.kill()
    helper.wait()
    said = (run / "slirp4netns.log").read_text(errors="replace").strip().splitlines() or ["it ended"]
    return 0, f"slirp4netns: {said[-1]}"
