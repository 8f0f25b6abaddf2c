"""Read and write a cgroup's control files, make and remove its directories."""

from __future__ import annotations

import errno
import os
import time

from proa.errors import Conflict, Denied, Exhausted, Invalid, Unavailable, Unsupported

PARENT = "proa"
_CLONE = "cgroup.clone_children"  # version 1 only


def write(directory: str, name: str, value: str | int) -> None:
    """Write one control file. Raises Unsupported when there is none, Invalid or Conflict when the kernel refuses."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        text = f"writing {value} to {name}: {os.strerror(error.errno or 0)}"
        if error.errno == errno.ENOENT:
            raise Unsupported(f"this kernel has no {name}", code="no-cgroup-file", subject=name) from None
        if error.errno in (errno.EINVAL, errno.ERANGE, errno.ENODEV):
            raise Invalid(text, code="invalid-limit", subject=name) from None
        if error.errno == errno.EBUSY:
            raise Conflict(text, code="limit-in-use", subject=name, hint="more than that is in use now") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Denied(text, code="cgroup-denied", subject=name) from None
        raise


def read(directory: str, name: str) -> str:
    """One control file without its last newline; empty when there is none."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        content = b""
        while chunk := os.read(fd, 1 << 16):
            content += chunk
        return content.decode().rstrip("\n")
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed meanwhile
            return ""
        raise
    finally:
        os.close(fd)


def read_number(directory: str, name: str) -> int:
    """A control file as a number; `max` and what is missing are -1."""
    text = read(directory, name)
    return int(text) if text.lstrip("-").isdecimal() else -1


def read_table(directory: str, name: str) -> dict[str, int]:
    """A file of `key number` lines."""
    table = {}
    for line in read(directory, name).splitlines():
        key, _separator, value = line.partition(" ")
        if value.isdecimal():
            table[key] = int(value)
    return table


def make(base: str, path: str, *, may_exist: bool = False) -> str:
    """Make the directory `path` (absolute, of two or more parts) below the hierarchy directory `base`.

    Another engine may be removing an empty parent at the same time, so it is made again then. Raises Conflict when the
    cgroup exists, unless it may, OSError when directories cannot be made here.
    """
    directory = base + path
    for _ in range(100):
        try:
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                if not may_exist:
                    raise
            if os.access(f"{directory}/cpuset.cpus", os.F_OK) and os.access(f"{directory}/{_CLONE}", os.F_OK):
                _fill_processors(base, directory)
            return directory
        except FileNotFoundError:
            _make_parents(base, os.path.dirname(path))
        except FileExistsError:
            text = f"cgroup {path} exists already"
            raise Conflict(text, code="cgroup-exists", subject=path, hint="another container has this id") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise Exhausted("the kernel allows no more cgroups", code="too-many-cgroups") from None
            raise
    raise Unavailable(f"cgroup {path} cannot be made: its parent keeps disappearing", code="cgroup-busy", subject=path)


def _make_parents(base: str, path: str) -> None:
    current = base
    for part in path.strip("/").split("/"):
        current += "/" + part
        try:
            os.mkdir(current, 0o755)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return  # removed again: the caller starts over
        if os.access(f"{current}/cpuset.cpus", os.F_OK) and os.access(f"{current}/{_CLONE}", os.F_OK):
            try:
                _fill_processors(base, current)
                write(current, _CLONE, 1)
            except Unsupported:
                return  # removed again


def _fill_processors(base: str, directory: str) -> None:
    """Version 1 starts with no processors at all: take the parent's, which somebody else may have made just now."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(directory, name):
            parent = os.path.dirname(directory)
            if parent != base:
                _fill_processors(base, parent)
            write(directory, name, read(parent, name))


def remove(directory: str, timeout_s: float, *, keep_parent: bool = False) -> None:
    """Remove a cgroup and those made inside it; waits for tasks on their way out. Missing is fine.

    A parent named `proa` goes too when it is empty, unless it is to be kept. Raises Unavailable when tasks remain after
    `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.0005
    while True:
        try:
            _remove_tree(directory)
            break
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"cgroup {directory} is still in use", code="cgroup-busy", subject=directory
                ) from None
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    parent = os.path.dirname(directory)
    if not keep_parent and os.path.basename(parent) == PARENT:
        remove_parent(os.path.dirname(parent))


def remove_parent(base: str) -> None:
    """Remove the directory `proa` below `base` if it is there and empty."""
    try:
        os.rmdir(f"{base}/{PARENT}")
    except OSError:
        pass  # it is not there, or others are in it


def _remove_tree(directory: str) -> None:
    try:
        os.rmdir(directory)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    for name in children(directory):
        _remove_tree(f"{directory}/{name}")
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass


def children(directory: str) -> list[str]:
    """Names of the cgroups made inside a cgroup."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def pids(directory: str) -> list[int]:
    """Processes of a cgroup and of those inside it."""
    found = [int(line) for line in read(directory, "cgroup.procs").split()]
    for name in children(directory):
        found += pids(f"{directory}/{name}")
    return found
