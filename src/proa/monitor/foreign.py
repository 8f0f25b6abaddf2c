"""Containers by another OCI runtime (crun, runc, gVisor's runsc), which is executed for each verb.

    launcher   mounts the root file system in a mount namespace of its own (nothing is mounted on the host), writes the
               bundle, runs `create` and `start`; with both done the container's process is the monitor's child
    monitor    a child subreaper by then; passes signals, pauses and the end on by running `kill`, `pause`, `delete`

The configuration is the one our own runtime gets, without what is proa's own in it: users are resolved to ids, the
default seccomp profile is spelled out.
"""

from __future__ import annotations

import os
import posixpath
import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from proa.errors import Denied, Internal, Invalid, NotFound, ProaError, TimedOut, Unsupported
from proa.linux import mount as m
from proa.linux import process as p
from proa.linux.sockets import receive_fds
from proa.runtime.cgroups.hierarchy import remove_unused_parents
from proa.runtime.defaults import DEFAULT_PATH
from proa.runtime.launching import Joinable, Launch, Process, Stdio
from proa.runtime.seccomp import default_profile
from proa.runtime.steps.command import restore_signals
from proa.runtime.steps.rootfs import MountRoot
from proa.runtime.users import resolve_user

__all__ = ["Foreign", "ForeignLaunch", "begin", "execute"]

_CONSOLE_TIMEOUT_MS = 20_000
_LOG_TOLD_BYTES = 16 << 10
# Options before the verb, by the program's name. These two do not make cgroups then: crun refuses the hybrid of both
# versions, runsc knows too few controllers. What they start stays in the cgroup that we made and they are in.
_OPTIONS = {"crun": ["--cgroup-manager=disabled"], "runsc": ["--platform=ptrace", "--ignore-cgroups"]}
_encoder = msgspec.json.Encoder()


class Foreign(msgspec.Struct, frozen=True):
    """A container of another runtime: the program, its state's and the bundle's directory, the container's name."""

    program: str
    directory: str
    id: str

    @property
    def makes_cgroups(self) -> bool:
        """Whether the runtime makes the container's cgroup, or is to be in it."""
        return posixpath.basename(self.program) not in _OPTIONS

    @property
    def pauses(self) -> bool:
        """Whether the runtime can pause the container; else that is done by the cgroup."""
        return posixpath.basename(self.program) != "crun"

    @property
    def log(self) -> str:
        """Where the runtime says what went wrong."""
        return f"{self.directory}/log"

    def run(self, verb: str, *words: str, stdio: Stdio | None = None, cgroup: Joinable | None = None) -> None:
        """Run a verb, in a cgroup if one is given, and wait for it. Raises what its log tells."""
        name = posixpath.basename(self.program)
        options = ["--root", f"{self.directory}/state", "--log", self.log, "--log-format", "json"]
        command = [self.program, *options, *_OPTIONS.get(name, ()), verb, *words]
        try:
            os.unlink(self.log)  # what it says of this verb, and of no earlier one
        except FileNotFoundError:
            pass
        pid = os.fork()
        if pid == 0:
            _become(command, stdio or Stdio(), cgroup)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            raise self._failure(verb, status)

    def _failure(self, verb: str, status: int) -> ProaError:
        name = posixpath.basename(self.program)
        text = ""
        for line in _read(self.log, _LOG_TOLD_BYTES).splitlines():
            try:
                entry = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                continue
            if entry.get("level") in ("error", "fatal") and isinstance(entry.get("msg"), str):
                text = entry["msg"]
        message = f"{name} {verb} failed: {text or f'status {status}'}"
        lowered = text.lower()
        if ("executable file" in lowered and "not found" in lowered) or "no such file or directory" in lowered:
            return NotFound(message, code="command-not-found", subject=self.id)
        if "permission denied" in lowered or "is a directory" in lowered:
            return Denied(message, code="command-not-executable", subject=self.id)
        return Invalid(message, code="runtime-failed", subject=self.id)

    def end(self) -> None:
        """Delete the container, whatever state it is in, and what was written for it. Raises nothing but OSError."""
        try:
            self.run("delete", "--force", self.id)
        except ProaError:
            pass  # there was none
        if self.makes_cgroups:
            remove_unused_parents()
        _remove(self.directory)


def _become(command: list[str], stdio: Stdio, cgroup: Joinable | None) -> NoReturn:
    """In a child: be the runtime."""
    try:
        for directory in cgroup.directories.values() if cgroup is not None else ():
            fd = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"0")
            os.close(fd)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for target, fd in enumerate(stdio):
            os.dup2(null if fd < 0 else fd, target, inheritable=True)
        restore_signals()
        os.execve(command[0], command, {"PATH": DEFAULT_PATH})  # noqa: S606
    finally:
        os._exit(127)


def _read(path: str, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, limit, max(0, os.fstat(fd).st_size - limit))
    finally:
        os.close(fd)


def _remove(directory: str) -> None:
    """Remove a directory of ours and what a runtime keeps in it; never through a mount or a link."""
    try:
        with os.scandir(directory) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if os.path.ismount(entry.path):
                m.umount2(entry.path, m.MNT_DETACH | m.UMOUNT_NOFOLLOW)  # ours, in a launcher whose start failed
            _remove(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(directory)


class ForeignLaunch(Launch):
    """As our own: created, and soon started by `outcome`."""

    __slots__ = ("_console_fd", "_foreign")

    def __init__(self, pid: int, foreign: Foreign, console_fd: int | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        super().__init__(pid, os.pidfd_open(pid), ours)
        self._foreign = foreign
        self._console_fd = console_fd

    def outcome(self, answer: object = None) -> Process:
        """Start the program. Raises why it could not be."""
        del answer
        self._channel.close()
        self._foreign.run("start", self._foreign.id)
        return Process(self.pid, self.pidfd, self.start_time, self._console_fd)

    def abandon(self) -> int:
        """See that nothing of it is left."""
        status = super().abandon()
        self._foreign.end()
        return status


def begin(
    foreign: Foreign,
    config: Mapping[str, Any],
    rootfs: Sequence[Mapping[str, Any]],
    *,
    stdio: Stdio,
    netns_fd: int | None,
    path: str,
    cgroup: Joinable | None,
) -> ForeignLaunch:
    """In the launcher: create the container of `config`. This process is in a mount namespace of its own afterwards.

    path: of the container's cgroup, which the runtime makes; or else cgroup, which it is put in.

    Raises Unsupported for what cannot be passed on, and what the runtime said. Nothing is left then.
    """
    if len(rootfs) != 1 or "idmap" in rootfs[0].get("options", ()):
        raise Unsupported("user namespaces need proa's own runtime", code="unsupported-config")
    try:
        _remove(foreign.directory)  # of an earlier start that was cut off
        os.makedirs(os.path.dirname(foreign.directory), mode=0o700, exist_ok=True)
        for directory in (foreign.directory, f"{foreign.directory}/state", f"{foreign.directory}/rootfs"):
            os.mkdir(directory, 0o700)
        root_fd = _mount_root(f"{foreign.directory}/rootfs", rootfs[0])
        try:
            document = _translate(config, root_fd, foreign, netns_fd, path if cgroup is None else "")
        finally:
            os.close(root_fd)
        _write(f"{foreign.directory}/config.json", document)
        _adapt_view(foreign)
        pid_file = f"{foreign.directory}/pid"
        words = ["--bundle", foreign.directory, "--pid-file", pid_file]
        console_fd = _run_with_console(
            foreign, "create", words, [foreign.id], cgroup, stdio=stdio, tty=stdio == Stdio()
        )
        return ForeignLaunch(int(_read(pid_file, 32)), foreign, console_fd)
    except BaseException:
        foreign.end()
        raise


def _adapt_view(foreign: Foreign) -> None:
    """Let a runtime see the machine as it understands it; this process must have a mount namespace of its own."""
    name = posixpath.basename(foreign.program)
    if name == "runsc":
        _hide_network_settings()
    elif name == "crun":
        try:  # it refuses machines with both versions of cgroups
            m.umount2("/sys/fs/cgroup/unified", m.MNT_DETACH)
        except OSError:
            pass  # there is only one


def _hide_network_settings() -> None:
    """gVisor of 2022 takes a network namespace for the host's when it sees files of this directory that kernels of
    today show in all; only this process and what it starts see the empty one."""
    fs = m.fsopen("tmpfs")
    try:
        m.fsconfig_create(fs)
        tree = m.fsmount(fs, m.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs)
    m.move_mount(tree, "", m.AT_FDCWD, "/proc/sys/net")
    os.close(tree)


def execute(
    foreign: Foreign,
    process: Mapping[str, Any],
    init: Process,
    *,
    stdio: Stdio,
    number: str,
    cgroup: Joinable | None,
) -> Process:
    """In a launcher of an exec: run one more process in the container. Raises what the runtime said."""
    if foreign.makes_cgroups:
        cgroup = None
    _separate_mounts()
    _adapt_view(foreign)
    root_fd = os.open(f"/proc/{init.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        document = _with_ids(process, root_fd)
    finally:
        os.close(root_fd)
    base = f"{foreign.directory}/exec-{number}"
    try:
        _write(f"{base}.json", document)
        words = ["--process", f"{base}.json", "--detach", "--pid-file", f"{base}.pid"]
        tty = bool(process.get("terminal"))
        console_fd = _run_with_console(foreign, "exec", words, [foreign.id], cgroup, stdio=stdio, tty=tty)
        pid = int(_read(f"{base}.pid", 32))
        return Process(pid, os.pidfd_open(pid), p.start_time(pid), console_fd)
    finally:
        for suffix in (".json", ".pid"):
            try:
                os.unlink(base + suffix)
            except FileNotFoundError:
                pass


def _mount_root(path: str, rootfs: Mapping[str, Any]) -> int:
    """Mount the root file system at `path`, in this process's new mount namespace; a descriptor of it."""
    _separate_mounts()
    tree = MountRoot(rootfs["type"], rootfs["source"], list(rootfs["options"])).open_tree()
    m.move_mount(tree, "", m.AT_FDCWD, path)
    return tree


def _separate_mounts() -> None:
    p.unshare(p.CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)


def _write(path: str, document: Mapping[str, Any]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _encoder.encode(document))
    finally:
        os.close(fd)


def _run_with_console(
    foreign: Foreign,
    verb: str,
    options: list[str],
    words: list[str],
    cgroup: Joinable | None,
    *,
    stdio: Stdio,
    tty: bool,
) -> int | None:
    """Run a verb that makes a process; with a terminal, its master is returned."""
    if not tty:
        foreign.run(verb, *options, *words, stdio=stdio, cgroup=cgroup)
        return None
    path = f"{foreign.directory}/console"
    fd = os.open(foreign.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(f"/proc/self/fd/{fd}/console")
        finally:
            os.close(fd)
        listener.listen(1)
        try:
            foreign.run(verb, *options, "--console-socket", path, *words, cgroup=cgroup)
            ready = select.poll()
            ready.register(listener, select.POLLIN)
            if not ready.poll(_CONSOLE_TIMEOUT_MS):
                raise TimedOut(f"{foreign.program} sent no terminal", code="no-terminal", subject=foreign.id)
            connection, _address = listener.accept()
            with connection:
                _name, fds = receive_fds(connection, 4096, 1)
        finally:
            os.unlink(path)
    if not fds:
        raise Internal(f"{foreign.program} sent no terminal", code="no-terminal", subject=foreign.id)
    return fds[0]


def _translate(
    config: Mapping[str, Any], root_fd: int, foreign: Foreign, netns_fd: int | None, cgroup: str
) -> dict[str, Any]:
    """config.json as the specification has it."""
    annotations = dict(config.get("annotations") or {})
    if annotations.pop("proa.init", ""):
        raise Unsupported("--init needs proa's own runtime", code="unsupported-config", subject=foreign.id)
    process = _with_ids(config["process"], root_fd)
    linux = dict(config["linux"])
    if annotations.pop("proa.seccomp", "") == "default":
        names = set((process.get("capabilities") or {}).get("bounding", ()))
        linux["seccomp"] = default_profile(names, os.uname().machine)
    if netns_fd is not None:
        kinds = [one for one in linux["namespaces"] if one["type"] != "network"]
        linux["namespaces"] = [*kinds, {"type": "network", "path": f"/proc/{os.getpid()}/fd/{netns_fd}"}]
    if cgroup:
        linux["cgroupsPath"] = cgroup
    root = {"path": "rootfs", "readonly": bool((config.get("root") or {}).get("readonly"))}
    return {
        "ociVersion": "1.0.2",
        **{key: config[key] for key in ("hostname", "domainname", "mounts") if config.get(key)},
        "process": process,
        "root": root,
        "linux": linux,
        "annotations": annotations,
    }


def _with_ids(process: Mapping[str, Any], root_fd: int) -> dict[str, Any]:
    """The process with its user as numbers, looked up in the container's own files, and with HOME."""
    user = dict(process.get("user") or {})
    name, groups = user.pop("username", None), user.pop("additionalGroups", ())
    wanted = name if name is not None else f"{user.get('uid', 0)}:{user.get('gid', 0)}"
    found = resolve_user(root_fd, wanted, groups)
    gids = dict.fromkeys((found.gid, *user.get("additionalGids", ()), *found.gids))
    user.update(uid=found.uid, gid=found.gid, additionalGids=list(gids))
    env = list(process.get("env") or ())
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={found.home}")
    return {**process, "user": user, "env": env}
