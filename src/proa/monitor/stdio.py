"""Pipes and terminals between a monitor and a process it starts."""

from __future__ import annotations

import os

from proa.runtime.launching import Stdio

__all__ = ["StdioPipes", "monitor_ends", "stdio_of", "stream_names"]


class StdioPipes:
    """One process's pipes before and during its start: its ends and ours.

    stdin: make a pipe for input, else the process reads /dev/null; discard: drop its output instead of piping it.
    """

    def __init__(self, *, stdin: bool, discard: bool = False) -> None:
        self.outputs: list[int] = []
        self.stdin_fd = -1
        self.theirs: list[int] = []
        if stdin:
            read_end, self.stdin_fd = os.pipe2(os.O_CLOEXEC)
            self.theirs.append(read_end)
        else:
            self.theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for _ in stream_names(tty=False):
            if discard:
                self.theirs.append(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
            else:
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                self.outputs.append(read_end)
                self.theirs.append(write_end)


def stream_names(tty: bool) -> tuple[str, ...]:
    """The outputs of a process, in the order of their descriptors."""
    return ("stdout",) if tty else ("stdout", "stderr")


def stdio_of(pipes: StdioPipes | None) -> Stdio:
    """What the process gets; None for a terminal, which the launch makes itself."""
    return Stdio() if pipes is None else Stdio(*pipes.theirs)


def monitor_ends(pipes: StdioPipes | None, console_fd: int | None, *, stdin: bool) -> tuple[list[int], int]:
    """The monitor's descriptors: (outputs, stdin or -1); a terminal's is duplicated for stdin."""
    if pipes is not None:
        return pipes.outputs, pipes.stdin_fd
    assert console_fd is not None
    return [console_fd], os.dup(console_fd) if stdin else -1
