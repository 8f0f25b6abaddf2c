"""What is known of each container, as files:

ROOT/                       0700; one directory a caller
  ID/                       made first: whoever makes it owns the name
    record.json             who the container is (`Record`), replaced by rename
    config.json             its configuration as it was when it was created, for `exec`
    start                   socket on which its first process waits; gone once it was told to start
"""

from __future__ import annotations

import posix

from proa.errors import Conflict, Corrupt, Invalid, NotFound
from proa.runtime.verbs import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CONFIG", "START", "Record", "check_id", "ids", "load", "make_directory", "remove", "state_of", "status_of"]

_S_IFMT, _S_IFDIR = 0o170000, 0o040000
RECORD, CONFIG, START = "record.json", "config.json", "start"
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Record:
    """A container. `pid` is 0 as long as there is no process; with start time (ticks since boot) and boot it is unique.

    cgroup:  its directories by hierarchy (`cgroups.in_directories`), empty without.
    hooks:   those that later verbs run: poststart and poststop.
    notify:  where file descriptors of seccomp listeners go: (path, metadata), or empty.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.id: str = document["id"]
        self.bundle: str = document["bundle"]
        self.pid: int = document["pid"]
        self.start_time: int = document["startTime"]
        self.boot_id: str = document["bootId"]
        self.cgroup: dict[str, str] = document["cgroup"]
        self.hooks: dict[str, list[dict[str, Any]]] = document["hooks"]
        self.notify: list[str] = document["notify"]

    def save(self, directory: str) -> None:
        """Write it into the container's directory."""
        self.document.update(pid=self.pid, startTime=self.start_time, cgroup=self.cgroup)
        documents.write_document(f"{directory}/{RECORD}", self.document)


def check_id(container_id: str) -> str:
    """A container's name, which becomes a directory's. Raises Invalid."""
    if not container_id or not _ID_CHARACTERS.issuperset(container_id) or container_id in (".", ".."):
        raise Invalid(
            f"container id `{container_id}` must be of letters, digits, `_`, `+`, `-`, `.`", code="invalid-id"
        )
    if len(container_id) > 255:
        raise Invalid("a container id has at most 255 characters", code="invalid-id")
    return container_id


def make_directory(root: str, container_id: str) -> str:
    """Take the name: make the container's directory. Raises Conflict when the name is in use."""
    check_id(container_id)
    path = ""
    for part in root.strip("/").split("/"):
        path += "/" + part
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            pass
    directory = f"{root}/{container_id}"
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        text = f"container with id {container_id} exists already"
        raise Conflict(text, code="container-exists", subject=container_id) from None
    return directory


def load(root: str, container_id: str) -> tuple[str, Record]:
    """A container's directory and record. Raises NotFound; Conflict while another process is creating it."""
    directory = f"{root}/{check_id(container_id)}"
    try:
        document = documents.read_document(f"{directory}/{RECORD}")
    except NotFound:
        if is_directory(directory):
            text = f"container {container_id} is being created"
            raise Conflict(text, code="container-creating", subject=container_id) from None
        text = f"container {container_id} does not exist"
        raise NotFound(text, code="no-such-container", subject=container_id) from None
    try:
        return directory, Record(document)
    except (KeyError, TypeError):
        raise Corrupt(f"{directory}/{RECORD} is not a container's record", subject=container_id) from None


def ids(root: str) -> list[str]:
    """Names of all containers, sorted."""
    try:
        return sorted(name for name in posix.listdir(root) if is_directory(f"{root}/{name}"))
    except FileNotFoundError:
        return []


def is_directory(path: str) -> bool:
    """Whether there is a directory."""
    try:
        return posix.stat(path).st_mode & _S_IFMT == _S_IFDIR
    except OSError:
        return False


def remove(directory: str) -> None:
    """Remove a container's directory, whose files are all ours."""
    for name in posix.listdir(directory):
        posix.unlink(f"{directory}/{name}")
    posix.rmdir(directory)


def alive(record: Record) -> bool:
    """Whether the first process still runs: neither gone, nor a zombie, nor another process with its number."""
    if not record.pid or record.boot_id != boot_id():
        return False
    try:
        with open(f"/proc/{record.pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == record.start_time


def boot_id() -> str:
    """Identifies this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read(64).decode().strip()


def status_of(directory: str, record: Record) -> str:
    """creating, created, running, paused or stopped (runtime-spec runtime.md, State)."""
    if not alive(record):
        return "creating" if not record.pid else "stopped"
    if posix.access(f"{directory}/{START}", posix.F_OK):
        return "created"
    return "paused" if _frozen(record.cgroup) else "running"


def _frozen(cgroup: dict[str, str]) -> bool:
    for name, directory in cgroup.items():
        file = "cgroup.freeze" if not name else "freezer.state" if "freezer" in name.split(",") else ""
        if file:
            try:
                with open(f"{directory}/{file}", "rb", buffering=0) as state:
                    return state.read(64).strip() in (b"1", b"FROZEN", b"FREEZING")
            except FileNotFoundError:
                return False
    return False


def state_of(record: Record, status: str) -> dict[str, Any]:
    """The state document that hooks and callers get."""
    document = record.document
    return {
        "ociVersion": document["ociVersion"],
        "id": record.id,
        "pid": 0 if status == "stopped" else record.pid,
        "status": status,
        "bundle": record.bundle,
        "rootfs": document["rootfs"],
        "created": document["created"],
        "annotations": document["annotations"],
        "owner": "",
    }
