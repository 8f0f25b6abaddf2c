"""create: prepare a container from a bundle, up to but without its program."""

from __future__ import annotations

import _socket
import errno
import os

from proa.errors import Denied, Invalid
from proa.runtime import cgroups
from proa.runtime.cgroups.cgroup import Cgroup
from proa.runtime.launching import Process, Stdio, begin
from proa.runtime.plan import compile_plan
from proa.runtime.verbs import documents, log, records
from proa.runtime.verbs.console import pass_console
from proa.runtime.verbs.hooks import parse_hooks, run_all, run_strictly
from proa.runtime.verbs.options import FLAG, VALUE, Options, Settings
from proa.runtime.verbs.preparing import prepare
from proa.runtime.verbs.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["OPTIONS", "create", "run"]

OPTIONS = {
    "--bundle": VALUE,
    "-b": "--bundle",
    "--pid-file": VALUE,
    "--console-socket": VALUE,
    "--preserve-fds": VALUE,
    "--pidfd-socket": VALUE,
    "--no-pivot": FLAG,
    "--no-new-keyring": FLAG,
}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb."""
    container_id = one_id(words)
    console = options.value("console-socket")
    process = create(settings, options, container_id, console_wanted=bool(console))
    os.close(process.pidfd)
    return 0


def one_id(words: list[str]) -> str:
    """The container id that is a verb's only word. Raises Invalid."""
    if len(words) != 1:
        raise Invalid("one container id is needed", code="usage")
    return words[0]


def create(settings: Settings, options: Options, container_id: str, *, console_wanted: bool) -> Process:
    """Create a container; its first process waits to be started. With a terminal, `console_fd` is given away when the
    caller named a console socket. On any error nothing is left. The caller closes the pidfd."""
    bundle = os.path.abspath(options.value("bundle") or ".")
    kept = kept_fds(options)
    os.closerange(3 + kept, 1 << 20)  # what the caller left open is not the container's
    if options.flag("no-pivot"):
        raise Invalid("containers without pivot_root are not supported", code="unsupported-option")

    def warn(text: str) -> None:
        log.warn(settings, text)

    config = prepare(documents.read_document(f"{bundle}/config.json"), bundle, warn)
    if options.flag("no-new-keyring"):
        config["annotations"]["proa.keyring"] = "inherited"
    _check_terminal(config, console_wanted=console_wanted, given=bool(options.value("console-socket")))
    add_listen_fds(config["process"], kept)
    creation = _Creation(settings, options, config)
    try:
        return creation.run(container_id, bundle, kept)
    except BaseException:
        creation.undo()
        raise


class _Creation:
    """One creation, and what is to be undone should it fail."""

    def __init__(self, settings: Settings, options: Options, config: dict[str, Any]) -> None:
        self._settings = settings
        self._options = options
        self._config = config
        self._undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Take back what was done, the last first; what cannot be does not keep the rest."""
        failure: Exception | None = None
        for step in reversed(self._undo):
            try:
                step()
            except Exception as error:  # noqa: BLE001 - told once all is tried
                failure = error
        if failure is not None:
            raise failure

    def run(self, container_id: str, bundle: str, kept: int) -> Process:
        config, undo = self._config, self._undo
        directory = records.make_directory(self._settings.root, container_id)
        undo.append(lambda: records.remove(directory))
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        undo.append(listener.close)
        _bind(listener, directory)
        rootfs = {"type": "rbind", "source": config["root"]["path"], "options": ["rbind"]}
        plan = compile_plan(config, [rootfs], listener_fd=listener.fileno(), kept_fds=kept)
        for line in plan.describe() if self._settings.debug else ():
            log.debug(self._settings, line)
        hooks = config.get("hooks") or {}
        record = self._record(container_id, bundle)
        group = self._make_cgroup(container_id)
        record.cgroup = dict(group.directories) if group is not None else {}
        documents.write_document(f"{directory}/{records.CONFIG}", config)
        terminal = plan.terminal
        stdio = Stdio() if terminal else Stdio(0, 1, 2)
        launch = begin(plan, stdio=stdio, cgroup=group)
        undo.append(launch.abandon)
        record.pid, record.start_time = launch.pid, launch.start_time
        record.save(directory)

        def run_runtime_hooks(_line: bytes) -> bytes:
            undo.append(lambda: run_all(self._settings, "poststop", record, "stopped"))
            for kind in ("prestart", "createRuntime"):
                run_strictly(kind, parse_hooks(hooks.get(kind)), record, "creating")
            return documents.encode(records.state_of(record, "creating")).encode()

        process = launch.outcome(run_runtime_hooks)
        for text in process.warnings:
            log.warn(self._settings, text)
        if process.console_fd is not None and (path := self._options.value("console-socket")):
            pass_console(path, process.console_fd)
        if path := self._options.value("pidfd-socket"):
            pass_console(path, process.pidfd, close=False)
        if path := self._options.value("pid-file"):
            documents.write_text(path, str(process.pid), 0o644)
        listener.close()
        return process

    def _record(self, container_id: str, bundle: str) -> Record:
        config = self._config
        raw_hooks = config.get("hooks") or {}
        seccomp = config["linux"].get("seccomp") or {}
        path = seccomp.get("listenerPath", "")
        return Record(
            {
                "id": container_id,
                "bundle": bundle,
                "rootfs": config["root"]["path"],
                "ociVersion": config["ociVersion"],
                "created": log.now(),
                "annotations": {k: v for k, v in config["annotations"].items() if not k.startswith("proa.")},
                "pid": 0,
                "startTime": 0,
                "bootId": records.boot_id(),
                "cgroup": {},
                "hooks": {kind: raw_hooks.get(kind) or [] for kind in ("poststart", "poststop")},
                "notify": [path, seccomp.get("listenerMetadata", "")] if path else [],
            }
        )

    def _make_cgroup(self, container_id: str) -> Cgroup | None:
        linux = self._config["linux"]
        if self._settings.cgroup_manager == "disabled":
            return None
        path = linux.get("cgroupsPath") or f"/{container_id}"
        try:
            group = cgroups.create(path, linux["resources"], adopt=True)
        except Denied as error:
            if linux["resources"].keys() - {"devices"} or not _rootless():
                raise
            # Without the host's privileges a container can do no more than its user, who has no say over cgroups here.
            log.warn(self._settings, f"no cgroup: {error.message}")
            return None
        self._undo.append(group.remove)
        return group


def _rootless() -> bool:
    """Whether this process is not the host's root: another user, or root in a user namespace."""
    if os.geteuid():
        return True
    with open("/proc/self/uid_map", encoding="ascii") as mapping:
        return mapping.read().split() != ["0", "0", "4294967295"]


def _bind(listener: _socket.socket, directory: str) -> None:
    # By the directory's descriptor: its path may be longer than the 107 bytes that an address holds.
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{records.START}")
    finally:
        os.close(fd)
    listener.listen(1)


def _check_terminal(config: dict[str, Any], *, console_wanted: bool, given: bool) -> None:
    terminal = bool(config["process"].get("terminal"))
    if terminal and not console_wanted:
        raise Invalid("a container with a terminal needs --console-socket", code="no-console-socket")
    if given and not terminal:
        raise Invalid("--console-socket is for containers with a terminal", code="unwanted-console-socket")


def kept_fds(options: Options) -> int:
    """How many descriptors after the standard streams the program inherits: those asked for, then LISTEN_FDS.

    Raises Invalid for one that is not open: another file of ours would take its number.
    """
    listen = os.environ.get("LISTEN_FDS", "")
    count = options.number("preserve-fds") + (int(listen) if listen.isascii() and listen.isdecimal() else 0)
    if not 0 <= count <= 1024:
        raise Invalid("--preserve-fds needs a number from 0 to 1024", code="usage")
    for fd in range(3, 3 + count):
        try:
            os.set_inheritable(fd, True)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            raise Invalid(f"file descriptor {fd} is to be preserved and is not open", code="usage") from None
    return count


def add_listen_fds(process: dict[str, Any], kept: int) -> None:
    """Tell a socket-activated program about its descriptors (sd_listen_fds(3))."""
    count = os.environ.get("LISTEN_FDS", "")
    if kept and count.isascii() and count.isdecimal() and int(count):
        process["env"] = [*(process.get("env") or ()), f"LISTEN_FDS={count}", "LISTEN_PID=1"]
