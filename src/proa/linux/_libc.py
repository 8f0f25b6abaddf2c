"""The one table of C prototypes, and how a failed call becomes an OSError.

Calls that glibc 2.31 exports are taken from it; newer ones go through `syscall` by number. Numbers from 424 up are the
same on every architecture proa knows; the few older ones are listed per machine. `dlopen(None)` looks at the running
program only, so nothing is searched on disk.

Of ctypes only the part in C is used: what the package adds in Python takes 2 ms to import.
"""

from __future__ import annotations

import os
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, addressof, get_errno
from _ctypes import dlopen as _dlopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _ctypes import Array
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = [
    "MACHINE",
    "Path",
    "addressof",
    "buffer",
    "c_char_p",
    "c_uint",
    "call",
    "fail",
    "get_errno",
    "path_bytes",
    "syscall",
    "syscall_holding_gil",
]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MACHINE = os.uname().machine


# C's types as ctypes names them; the letters are its own (as struct's, `z` for char *, `P` for void *).
if TYPE_CHECKING:
    from ctypes import c_char, c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p
else:

    def _c_type(letter: str) -> type[_SimpleCData]:
        return type(f"c_{letter}", (_SimpleCData,), {"_type_": letter})

    c_char, c_int, c_uint, c_long = _c_type("c"), _c_type("i"), _c_type("I"), _c_type("l")
    c_char_p, c_void_p = _c_type("z"), _c_type("P")
    c_ulong = c_size_t = c_uint64 = _c_type("L")  # as on every 64-bit Linux


class _Program:
    """What functions are looked up in: the running program and the C library it is linked with."""

    _handle = _dlopen(None, 0)  # type: ignore[arg-type]


_program: Any = _Program


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_int


class _FunctionHoldingGil(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
    _restype_ = c_int


# Functions of glibc. All pointers to structs are c_void_p: callers pass packed bytes, a ctypes buffer or None.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "mount": (c_int, c_char_p, c_char_p, c_char_p, c_ulong, c_void_p),
    "umount2": (c_int, c_char_p, c_int),
    "statfs": (c_int, c_char_p, c_void_p),
    "fstatfs": (c_int, c_int, c_void_p),
    "setns": (c_int, c_int, c_int),
    "unshare": (c_int, c_int),
    "prctl": (c_int, c_int, c_ulong, c_ulong, c_ulong, c_ulong),
    "mprotect": (c_int, c_void_p, c_size_t, c_int),
    "personality": (c_int, c_ulong),
    "mallopt": (c_int, c_int, c_int),
    "setfsuid": (c_int, c_uint),
    "setfsgid": (c_int, c_uint),
    "sethostname": (c_int, c_char_p, c_size_t),
    "setdomainname": (c_int, c_char_p, c_size_t),
    "syncfs": (c_int, c_int),
    "sync_file_range": (c_int, c_int, c_uint64, c_uint64, c_uint),
    "statx": (c_int, c_int, c_char_p, c_int, c_uint, c_void_p),
    "linkat": (c_int, c_int, c_char_p, c_int, c_char_p, c_int),
    "inotify_init1": (c_int, c_int),
    "inotify_add_watch": (c_int, c_int, c_char_p, c_uint),
    "inotify_rm_watch": (c_int, c_int, c_int),
    "capget": (c_int, c_void_p, c_void_p),
    "capset": (c_int, c_void_p, c_void_p),
    "ioctl": (c_int, c_int, c_ulong, c_ulong),
}

# Raw system calls: number (or numbers by machine) and argument types.
_X86, _ARM = "x86_64", "aarch64"
_SYSCALLS: dict[str, tuple[int | dict[str, int], tuple[Any, ...]]] = {
    "getcwd": ({_X86: 79, _ARM: 17}, (c_void_p, c_size_t)),
    "pivot_root": ({_X86: 155, _ARM: 41}, (c_char_p, c_char_p)),
    "keyctl": ({_X86: 250, _ARM: 219}, (c_int, c_void_p, c_ulong, c_ulong, c_ulong)),
    "ioprio_set": ({_X86: 251, _ARM: 30}, (c_int, c_int, c_int)),
    "renameat2": ({_X86: 316, _ARM: 276}, (c_int, c_char_p, c_int, c_char_p, c_uint)),
    "seccomp": ({_X86: 317, _ARM: 277}, (c_uint, c_uint, c_void_p)),
    "bpf": ({_X86: 321, _ARM: 280}, (c_int, c_void_p, c_uint)),
    "execveat": ({_X86: 322, _ARM: 281}, (c_int, c_char_p, c_void_p, c_void_p, c_int)),
    "sched_setattr": ({_X86: 314, _ARM: 274}, (c_int, c_void_p, c_uint)),
    "waitid": ({_X86: 247, _ARM: 95}, (c_int, c_int, c_void_p, c_int, c_void_p)),
    "pidfd_send_signal": (424, (c_int, c_int, c_void_p, c_uint)),
    "open_tree": (428, (c_int, c_char_p, c_uint)),
    "move_mount": (429, (c_int, c_char_p, c_int, c_char_p, c_uint)),
    "fsopen": (430, (c_char_p, c_uint)),
    "fsconfig": (431, (c_int, c_uint, c_char_p, c_void_p, c_int)),
    "fsmount": (432, (c_int, c_uint, c_uint)),
    "fspick": (433, (c_int, c_char_p, c_uint)),
    "pidfd_open": (434, (c_int, c_uint)),
    "clone3": (435, (c_void_p, c_size_t)),
    "close_range": (436, (c_uint, c_uint, c_uint)),
    "openat2": (437, (c_int, c_char_p, c_void_p, c_size_t)),
    "pidfd_getfd": (438, (c_int, c_int, c_uint)),
    "mount_setattr": (442, (c_int, c_char_p, c_uint, c_void_p, c_size_t)),
    "landlock_create_ruleset": (444, (c_void_p, c_size_t, c_uint)),
    "landlock_add_rule": (445, (c_int, c_int, c_void_p, c_uint)),
    "landlock_restrict_self": (446, (c_int, c_uint)),
}


def call(name: str) -> Callable[..., int]:
    """The glibc function `name` with its prototype set; it returns -1 and sets errno as in C."""
    function = _Function((name, _program))
    function.restype, *arguments = _PROTOTYPES[name]
    function.argtypes = arguments
    return function


def _bind(kind: type[CFuncPtr], name: str) -> Callable[..., int]:
    number, arguments = _SYSCALLS[name]
    if isinstance(number, dict):
        number = number.get(MACHINE, -1)  # the kernel answers ENOSYS to -1
    function = kind(("syscall", _program))  # a new one each time, so every call has its own prototype
    function.restype = c_long
    function.argtypes = (c_long, *arguments)

    def raw(*values: Any) -> int:
        result: int = function(number, *values)
        return result

    return raw


def syscall(name: str) -> Callable[..., int]:
    """The raw system call `name`; it returns -1 and sets errno as glibc's wrapper does."""
    return _bind(_Function, name)


def syscall_holding_gil(name: str) -> Callable[..., int]:
    """Like `syscall`, without giving up the interpreter lock: for calls that return in a new process."""
    return _bind(_FunctionHoldingGil, name)


def buffer(content: int | bytes) -> Array[c_char]:
    """Writable memory of so many bytes for a kernel's answer, or with a copy of these; read it with `.raw`."""
    if isinstance(content, int):
        return (c_char * content)()
    memory = (c_char * len(content))()
    memory.raw = content
    return memory


def path_bytes(path: Path) -> bytes:
    """A path as the kernel takes it. Raises ValueError on an embedded NUL, which C would silently cut at."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"embedded NUL in path {raw!r}")
    return raw


def fail(name: str, path: Path | None = None, path2: Path | None = None) -> NoReturn:
    """Raise the OSError of the last failed call: `[Errno 16] pivot_root: Device or resource busy: '/x'`."""
    errno = get_errno()
    text = f"{name}: {os.strerror(errno)}"
    if path2 is not None:
        raise OSError(errno, text, path, None, path2)
    if path is not None:
        raise OSError(errno, text, path)
    raise OSError(errno, text)
