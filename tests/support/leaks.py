"""What must not be left on the machine: processes, mounts, cgroups, links, nft tables, loop devices, files."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MARK = "TEST_RUN_OF_PROA"
# Inherited by what this run starts, engines included: so it can tell the engines of other runs from its own.
RUN = os.environ.setdefault(MARK, uuid.uuid4().hex)


def read(path: Path) -> str:
    """A file's text, empty when it cannot be read: what one looks at may end at any moment."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def processes() -> set[str]:
    """`pid start-time command` of every process that has to do with proa."""
    out = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        command = read(entry / "cmdline").replace("\0", " ").strip()
        name = read(entry / "comm").strip()
        if "proa" in command.partition(" -c ")[0] or name.startswith("proa"):
            if "pytest" in command or "xdist" in command or int(entry.name) == os.getpid():
                continue
            if run_of(int(entry.name)) not in ("", RUN):
                continue
            stat = read(entry / "stat").rpartition(")")[2].split()
            if stat and stat[0] != "Z":
                out.add(f"{entry.name} {stat[19]} {command or name}")
    return out


def run_of(pid: int) -> str:
    """The mark of the test run that a process or the nearest of its ancestors was started by, "" when none says."""
    for one in lineage(pid):
        for entry in read(Path(f"/proc/{one}/environ")).split("\0"):
            if entry.startswith(f"{MARK}="):
                return entry.removeprefix(f"{MARK}=")
    return ""


def lineage(pid: int) -> list[int]:
    """A process, its parent, and so on, without the first process of all."""
    out = []
    while pid > 1:
        out.append(pid)
        fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        pid = int(fields[1]) if fields else 0
    return out


def mounts() -> set[str]:
    """Mount points of this mount namespace."""
    return {line.split()[4] for line in read(Path("/proc/self/mountinfo")).splitlines()}


def cgroups() -> set[str]:
    """Cgroups below any directory that names proa."""
    out = set()
    for hierarchy in (CGROUPS, *[p for p in CGROUPS.iterdir() if p.is_dir()]):
        for top in hierarchy.glob("*proa*"):
            out |= {path for path, _, _ in os.walk(top)}  # passes over what ends meanwhile
    return out


def links() -> set[str]:
    """Network interfaces of this network namespace."""
    return set(os.listdir("/sys/class/net"))


def nft_tables() -> set[str]:
    """nftables tables of this network namespace."""
    nft = "/usr/sbin/nft"
    if not os.path.exists(nft):
        return set()
    return set(subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines())


def loops() -> set[str]:
    """Loop devices with a file behind them."""
    return {f"{p.parent.parent.name} {read(p).strip()}" for p in Path("/sys/block").glob("loop*/loop/backing_file")}


def temporary() -> set[str]:
    """Temporary files by their usual names."""
    return {str(p) for d in ("/tmp", "/dev/shm") for p in Path(d).glob("*proa*") if not p.name.startswith("pytest-")}


KINDS: dict[str, Callable[[], set[str]]] = {
    "process": processes,
    "mount": mounts,
    "cgroup": cgroups,
    "link": links,
    "nft table": nft_tables,
    "loop device": loops,
    "temporary file": temporary,
}


def snapshot() -> dict[str, set[str]]:
    """Everything there is now."""
    return {kind: look() for kind, look in KINDS.items()}


def new_since(before: dict[str, set[str]]) -> list[str]:
    """What is there now and was not before, one line each."""
    after = snapshot()
    # What an engine that was there before has started since is not ours.
    engines = {int(item.split()[0]) for item in before["process"] if " proa.api " in item}
    after["process"] = {item for item in after["process"] if not engines.intersection(lineage(int(item.split()[0])))}
    return [f"{kind}: {item}" for kind in KINDS for item in sorted(after[kind] - before[kind])]


def lasting_since(before: dict[str, set[str]], seconds: float = 10.0) -> list[str]:
    """Like `new_since`, without what goes away by itself: that of another test run of the same machine, say."""
    deadline = time.monotonic() + seconds
    left = new_since(before)
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        now = set(new_since(before))
        left = [line for line in left if line in now]
    return left


def command_of(pid: int) -> str:
    """A process's command line, "" when it is gone."""
    return read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def users_of(directory: Path) -> list[str]:
    """Processes that have a file below `directory` open, or anything of it mounted, whatever they call themselves."""
    out = []
    words = (f"{directory}/", f"{directory} ")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        used = word_in(read(entry / "mountinfo"), words)
        try:
            used = used or any(os.readlink(fd).startswith(words[0]) for fd in (entry / "fd").iterdir())
        except OSError:
            pass  # it has just ended, or closed the file
        if used:
            out.append(f"user: {entry.name} {command_of(int(entry.name)) or read(entry / 'comm').strip()}")
    return out


def word_in(text: str, words: tuple[str, ...]) -> bool:
    """True when any of `words` occurs."""
    return any(w in text for w in words)


def naming(words: tuple[str, ...]) -> list[str]:
    """What is there now and names one of `words`: a test's own directory, its engine's id."""
    now = snapshot()
    return [f"{kind}: {item}" for kind, items in now.items() for item in sorted(items) if any(w in item for w in words)]
