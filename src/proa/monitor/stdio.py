"""Pipes and terminals between a monitor and a process it starts."""

from __future__ import annotations

import os

from proa.runtime.launching import Stdio

__all__ = ["StdioPipes", "monitor_ends", "split_ends", "stdio_of"]


class StdioPipes:
    """One process's pipes before and during its start: its ends and ours.

    stdin: make a pipe for input, else the process reads /dev/null; discard: drop its output instead of piping it.
    """

    def __init__(self, *, stdin: bool, discard: bool = False) -> None:
        self.ours: list[int] = []
        self.theirs: list[int] = []
        stdin_fd = -1
        try:
            if stdin:
                read_end, stdin_fd = os.pipe2(os.O_CLOEXEC)
                self.theirs.append(read_end)
            else:
                self.theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            for _ in ("stdout", "stderr"):
                if discard:
                    self.theirs.append(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
                else:
                    read_end, write_end = os.pipe2(os.O_CLOEXEC)
                    self.ours.append(read_end)
                    self.theirs.append(write_end)
        finally:
            if stdin_fd >= 0:
                self.ours.append(stdin_fd)


def stdio_of(pipes: StdioPipes | None) -> Stdio:
    """What the process gets; None for a terminal, which the launch makes itself."""
    return Stdio() if pipes is None else Stdio(*pipes.theirs)


def monitor_ends(pipes: StdioPipes | None, console_fd: int | None, *, stdin: bool) -> list[int]:
    """The monitor's descriptors in the order that `split_ends` expects; a terminal's is there twice with stdin."""
    if pipes is not None:
        return pipes.ours
    assert console_fd is not None
    return [console_fd, os.dup(console_fd)] if stdin else [console_fd]


def split_ends(fds: list[int], *, tty: bool, stdin: bool) -> tuple[dict[int, str], int]:
    """(outputs by descriptor, stdin's descriptor or -1) of what `monitor_ends` gave."""
    stdin_fd = fds.pop() if stdin else -1
    if tty:
        return {fds[0]: "stdout"}, stdin_fd
    return dict(zip(fds, ("stdout", "stderr"), strict=False)), stdin_fd
