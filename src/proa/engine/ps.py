"""`top`: the columns of ps(1) for a container's processes, read from the host's /proc.

Nothing is executed, and nothing inside the container is opened (CVE-2022-1227: `top` that ran the image's tools).
Understood are the usual ways to ask: `-ef`, `-eF`, `-el`, `aux`, `-o pid,comm`, `-eo pid=NUMBER,args`.
Sources: ps(1), proc_pid_stat(5), proc_pid_status(5).
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from pathlib import Path

from proa.errors import Invalid

__all__ = ["columns_of", "process_rows"]


class _Host:
    """What all rows need, read once."""

    def __init__(self) -> None:
        self.ticks = os.sysconf("SC_CLK_TCK")
        self.page = os.sysconf("SC_PAGE_SIZE")
        self.memory = os.sysconf("SC_PHYS_PAGES") * self.page
        self.now = time.time()
        self.uptime = float((_read("/proc/uptime") or "0").split()[0])
        self._names: dict[int, str] = {}

    def user(self, uid: int) -> str:
        """The host's name of a user, its number when it has none or a long one."""
        if uid not in self._names:
            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = str(uid)
            self._names[uid] = name if len(name) <= 8 else name[:7] + "+"
        return self._names[uid]


class _Process:
    """One process as /proc shows it. Raises OSError when it is gone, ValueError when it is not understood."""

    def __init__(self, host: _Host, pid: int) -> None:
        self.host = host
        self.pid = pid
        stat = _read(f"/proc/{pid}/stat")
        if not stat:
            raise OSError(pid)
        self.comm = stat[stat.find("(") + 1 : stat.rfind(")")]
        self.fields = stat[stat.rfind(")") + 2 :].split()
        self.status = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
        if len(self.fields) < 37 or "Uid" not in self.status:
            raise OSError(pid)

    def number(self, field: int) -> int:
        """Field n of proc_pid_stat(5), counted from 1 as there; 3 and more."""
        return int(self.fields[field - 3])

    def ids(self, kind: str) -> list[int]:
        """Real, effective, saved and file-system ids: kind `Uid` or `Gid`."""
        return [int(text) for text in self.status[kind].split()]

    @property
    def seconds(self) -> float:
        """Processor time used."""
        return (self.number(14) + self.number(15)) / self.host.ticks

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return max(self.host.uptime - self.number(22) / self.host.ticks, 0.0)

    @property
    def started(self) -> float:
        """When it was started, in seconds since the epoch."""
        return self.host.now - self.age

    @property
    def percent(self) -> float:
        """Processor time as a share of its life."""
        return 100 * self.seconds / self.age if self.age >= 0.01 else 0.0

    @property
    def resident(self) -> int:
        """Bytes in memory."""
        return self.number(24) * self.host.page

    def command(self) -> str:
        """The whole command line, the name in brackets without one."""
        return _read(f"/proc/{self.pid}/cmdline").replace("\0", " ").strip() or f"[{self.comm}]"


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _tty(process: _Process) -> str:
    number = process.number(7)
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return f"pts/{minor + 256 * (major - 136)}"
    return f"tty{minor}" if major == 4 else "?"


def _state(process: _Process) -> str:
    """STAT of BSD: the state and what else is noteworthy."""
    nice = process.number(19)
    out = process.fields[0] + ("<" if nice < 0 else "N" if nice > 0 else "")
    out += "s" if process.number(6) == process.pid else ""
    out += "l" if process.number(20) > 1 else ""
    return out + ("+" if process.number(8) == process.number(5) else "")


def _clock(process: _Process) -> str:
    """HH:MM today, else the month and day."""
    then, today = time.localtime(process.started), time.localtime(process.host.now)
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%b%d", then)


def _time(process: _Process) -> str:
    seconds = int(process.seconds)
    days, rest = divmod(seconds, 86400)
    return (f"{days}-" if days else "") + f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _bsd_time(process: _Process) -> str:
    return f"{int(process.seconds) // 60}:{int(process.seconds) % 60:02}"


def _elapsed(process: _Process) -> str:
    seconds = int(process.age)
    days, rest = divmod(seconds, 86400)
    hours = f"{rest // 3600:02}:" if days or rest >= 3600 else ""
    return (f"{days}-" if days else "") + f"{hours}{rest // 60 % 60:02}:{rest % 60:02}"


Column = tuple[str, Callable[[_Process], str]]

#: What `-o` knows: name -> title and value.
COLUMNS: dict[str, Column] = {
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.number(4))),
    "pgid": ("PGID", lambda p: str(p.number(5))),
    "sid": ("SID", lambda p: str(p.number(6))),
    "user": ("USER", lambda p: p.host.user(p.ids("Uid")[1])),
    "ruser": ("RUSER", lambda p: p.host.user(p.ids("Uid")[0])),
    "uid": ("UID", lambda p: str(p.ids("Uid")[1])),
    "ruid": ("RUID", lambda p: str(p.ids("Uid")[0])),
    "gid": ("GID", lambda p: str(p.ids("Gid")[1])),
    "rgid": ("RGID", lambda p: str(p.ids("Gid")[0])),
    "c": ("C", lambda p: str(min(int(p.percent), 99))),
    "pcpu": ("%CPU", lambda p: f"{p.percent:.1f}"),
    "pmem": ("%MEM", lambda p: f"{100 * p.resident / p.host.memory:.1f}"),
    "vsz": ("VSZ", lambda p: str(p.number(23) // 1024)),
    "rss": ("RSS", lambda p: str(p.resident // 1024)),
    "sz": ("SZ", lambda p: str(p.number(23) // p.host.page)),
    "psr": ("PSR", lambda p: str(p.number(39))),
    "tty": ("TTY", _tty),
    "stat": ("STAT", _state),
    "s": ("S", lambda p: p.fields[0]),
    "stime": ("STIME", _clock),
    "start": ("STARTED", _clock),
    "lstart": ("STARTED", lambda p: time.ctime(p.started)),
    "time": ("TIME", _time),
    "bsdtime": ("TIME", _bsd_time),
    "etime": ("ELAPSED", _elapsed),
    "etimes": ("ELAPSED", lambda p: str(int(p.age))),
    "ni": ("NI", lambda p: str(p.number(19))),
    "pri": ("PRI", lambda p: str(39 - p.number(18))),
    "nlwp": ("NLWP", lambda p: str(p.number(20))),
    "wchan": ("WCHAN", lambda _p: "-"),
    "f": ("F", lambda p: str(p.number(9) >> 6 & 7)),
    "comm": ("COMMAND", lambda p: p.comm),
    "args": ("COMMAND", _Process.command),
}
_SAME = {
    "%cpu": "pcpu", "%mem": "pmem", "ucmd": "comm", "ucomm": "comm", "cmd": "args", "command": "args", "tname": "tty",
    "tt": "tty", "vsize": "vsz", "rssize": "rss", "rsz": "rss", "nice": "ni", "state": "s", "euser": "user",
    "euid": "uid", "egid": "gid", "cputime": "time", "start_time": "stime", "thcount": "nlwp", "pgrp": "pgid",
    "sess": "sid", "session": "sid", "cls": "pri", "flags": "f", "uname": "user",
}  # fmt: skip


def _named(*names: str, **titles: str) -> list[Column]:
    return [(titles.get(name, COLUMNS[name][0]), COLUMNS[name][1]) for name in names]


_PLAIN = _named("pid", "tty", "time", "comm", comm="CMD")
_FULL = _named("user", "pid", "ppid", "c", "stime", "tty", "time", "args", user="UID", args="CMD")
_EXTRA = _named("user", "pid", "ppid", "c", "sz", "rss", "psr", "stime", "tty", "time", "args", user="UID", args="CMD")
_LONG = _named(*("f", "s", "uid", "pid", "ppid", "c", "pri", "ni", "sz", "wchan", "tty", "time", "comm"), comm="CMD")
_USER = _named(*("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "bsdtime", "args"), start="START")


def columns_of(ps_args: str) -> list[Column]:
    """The columns that options of ps ask for. Raises Invalid for options we do not know."""
    words = ps_args.split()
    chosen: list[Column] = []
    shape = "" if words else "f"
    while words:
        word = words.pop(0)
        if word in ("--no-headers", "--no-heading", "h", "--noheaders"):
            raise Invalid("top needs the titles of the columns", code="ps-options", subject=word)
        if word.startswith("--format=") or word == "--format":
            chosen += _asked(word.partition("=")[2] or _next(words))
            continue
        letters = word.lstrip("-")
        if word.startswith("--") or not letters:
            raise _unknown(word)
        before, has_format, after = letters.partition("o")
        if set(before) - set("eAafFlxuwjdHTgL") or (not has_format and after):
            raise _unknown(word)
        for letter in before:
            if letter in "fFlu" and not (letter == "u" and word.startswith("-")):
                shape = letter
        if has_format:
            chosen += _asked(after or _next(words))
    shapes = {"f": _FULL, "F": _EXTRA, "l": _LONG, "u": _USER, "": _PLAIN}
    columns = chosen or shapes[shape]
    if not any(value is COLUMNS["pid"][1] for _, value in columns):
        raise Invalid("Couldn't find PID field in ps output", code="ps-options", subject=ps_args)
    return columns


def _next(words: list[str]) -> str:
    if not words:
        raise Invalid("ps: the list of columns is missing after -o", code="ps-options")
    return words.pop(0)


def _asked(text: str) -> list[Column]:
    out = []
    for part in text.split(","):
        name, has_title, title = part.partition("=")
        column = COLUMNS.get(_SAME.get(name.lower(), name.lower()))
        if column is None:
            raise Invalid(f"ps: unknown column {name[:40]!r}", code="ps-options", subject=name[:40])
        default = {"cmd": "CMD", "command": "COMMAND", "ucmd": "CMD", "tt": "TT"}.get(name.lower(), column[0])
        out.append((title if has_title else default, column[1]))
    return out


def _unknown(word: str) -> Invalid:
    return Invalid(
        f"ps: option {word[:40]!r} is not supported",
        code="ps-options",
        subject=word[:40],
        hint="use -ef, -eF, -el, aux, or -o with a list of columns",
    )


def process_rows(init: int, columns: list[Column], cgroup: str) -> list[list[str]]:
    """The processes in a container's cgroup, by pid; empty when `init` is gone.

    Without limits there may be no such cgroup: then those that share `init`'s pid namespace.
    """
    namespace = _namespace(init)
    if not namespace:
        return []
    by_cgroup = _in_cgroup(init, cgroup)
    host = _Host()
    rows = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if not (_in_cgroup(pid, cgroup) if by_cgroup else _namespace(pid) == namespace):
            continue
        try:
            process = _Process(host, pid)
            rows.append([value(process) for _, value in columns])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    return rows


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _in_cgroup(pid: int, path: str) -> bool:
    lines = _read(f"/proc/{pid}/cgroup").splitlines()
    return bool(path) and any(f"{line.split(':', 2)[-1]}/".find(f"{path}/") >= 0 for line in lines)
