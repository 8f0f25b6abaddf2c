"""Process 1 of a container that asked for one: a static program of a few hundred bytes, written here as machine code.

It runs the command as its child, passes every signal on to it, collects orphans, and ends as the child does (128 + n
for a signal). A Python process would cost megabytes per container and put an interpreter inside; this costs one page.

    argv: proa-init PROGRAM ARG0 ARG...         PROGRAM is an absolute path, ARG0... the child's argv

    block all signals
    fork: child  own process group, in the terminal's foreground if there is a terminal; unblock; execve; exit 126
          parent loop: wait for a signal; SIGCHLD: collect all ended children, end when the command is one of them;
                       any other: send it to the command
"""

from __future__ import annotations

import os
import struct

from proa.errors import Unsupported
from proa.linux import memory_files
from proa.linux._libc import MACHINE
from proa.linux.once import once

_BASE = 0x400000
_HEADERS = 64 + 2 * 56

_RT_SIGPROCMASK, _IOCTL, _FORK, _EXECVE, _EXIT_GROUP = 14, 16, 57, 59, 231
_WAIT4, _KILL, _SETPGID, _GETPID, _RT_SIGTIMEDWAIT, _PRCTL = 61, 62, 109, 39, 128, 157
_SIGCHLD = 17
_TIOCSPGRP = 0x5410


class _Code:
    """x86-64 instructions, as far as needed, with labels for short and near jumps."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.labels: dict[str, int] = {}
        self.fixups: list[tuple[int, str]] = []

    def emit(self, *parts: bytes | int) -> None:
        for part in parts:
            self.bytes += part if isinstance(part, bytes) else bytes([part])

    def label(self, name: str) -> None:
        self.labels[name] = len(self.bytes)

    def syscall(self, number: int) -> None:
        self.emit(0xB8, struct.pack("<I", number), b"\x0f\x05")  # mov eax, number; syscall

    def edi(self, value: int) -> None:
        self.emit(0xBF, struct.pack("<i", value))  # mov edi, value

    def esi(self, value: int) -> None:
        self.emit(0xBE, struct.pack("<i", value))

    def edx(self, value: int) -> None:
        self.emit(0xBA, struct.pack("<i", value))

    def r10d(self, value: int) -> None:
        self.emit(b"\x41\xba", struct.pack("<i", value))

    def jump(self, opcode: bytes, label: str) -> None:
        self.emit(opcode)
        self.fixups.append((len(self.bytes), label))
        self.emit(bytes(4))

    def finish(self) -> bytes:
        for place, label in self.fixups:
            struct.pack_into("<i", self.bytes, place, self.labels[label] - (place + 4))
        return bytes(self.bytes)


_JMP, _JE, _JNE, _JLE, _JS = b"\xe9", b"\x0f\x84", b"\x0f\x85", b"\x0f\x8e", b"\x0f\x88"


def _text() -> bytes:
    """The program. Registers: rbx argv, r12 envp, ebp the child's pid; [rsp] the signal set, [rsp+16] wait status."""
    c = _Code()
    c.emit(b"\x48\x8b\x04\x24")  # mov rax, [rsp]            argc
    c.emit(b"\x48\x8d\x5c\x24\x08")  # lea rbx, [rsp+8]      argv
    c.emit(b"\x4c\x8d\x64\xc4\x10")  # lea r12, [rsp+rax*8+16] envp
    c.emit(b"\x48\x83\xf8\x03")  # cmp rax, 3
    c.emit(b"\x0f\x8c")  # jl bad
    c.fixups.append((len(c.bytes), "bad"))
    c.emit(bytes(4))
    c.emit(b"\x48\x83\xec\x40")  # sub rsp, 64
    c.emit(b"\x48\xc7\x04\x24\xff\xff\xff\xff")  # mov qword [rsp], -1   all signals
    # name this process as argv[0] does: prctl PR_SET_NAME
    c.edi(15)
    c.emit(b"\x48\x8b\x33")  # mov rsi, [rbx]
    c.syscall(_PRCTL)
    # block the set
    c.edi(2)
    c.emit(b"\x48\x89\xe6")  # mov rsi, rsp
    c.edx(0)
    c.r10d(8)
    c.syscall(_RT_SIGPROCMASK)
    c.syscall(_FORK)
    c.emit(b"\x85\xc0")  # test eax, eax
    c.jump(_JS, "bad")
    c.jump(_JE, "child")
    c.emit(b"\x89\xc5")  # mov ebp, eax

    c.label("wait")
    # any signal, without time-out
    c.emit(b"\x48\x89\xe7")  # mov rdi, rsp
    c.esi(0)
    c.edx(0)
    c.r10d(8)
    c.syscall(_RT_SIGTIMEDWAIT)
    c.emit(b"\x85\xc0")  # test eax, eax
    c.jump(_JLE, "wait")
    c.emit(b"\x83\xf8", _SIGCHLD)  # cmp eax, SIGCHLD
    c.jump(_JE, "reap")
    c.emit(b"\x89\xef", b"\x89\xc6")  # mov edi, ebp; mov esi, eax
    c.syscall(_KILL)
    c.jump(_JMP, "wait")

    c.label("reap")
    # any child that has ended
    c.emit(b"\x48\xc7\xc7\xff\xff\xff\xff")  # mov rdi, -1
    c.emit(b"\x48\x8d\x74\x24\x10")  # lea rsi, [rsp+16]
    c.edx(1)
    c.r10d(0)
    c.syscall(_WAIT4)
    c.emit(b"\x85\xc0")  # test eax, eax
    c.jump(_JLE, "wait")
    c.emit(b"\x39\xe8")  # cmp eax, ebp
    c.jump(_JNE, "reap")
    c.emit(b"\x8b\x7c\x24\x10")  # mov edi, [rsp+16]
    c.emit(b"\x89\xf8")  # mov eax, edi
    c.emit(b"\x83\xe0\x7f")  # and eax, 127               killed by
    c.jump(_JE, "exited")
    c.emit(b"\x8d\xb8\x80\x00\x00\x00")  # lea edi, [rax+128]
    c.syscall(_EXIT_GROUP)
    c.label("exited")
    c.emit(b"\xc1\xef\x08")  # shr edi, 8
    c.emit(b"\x81\xe7\xff\x00\x00\x00")  # and edi, 255
    c.syscall(_EXIT_GROUP)

    c.label("child")
    # an own process group: signals typed at the terminal reach the command once, not also by way of its parent
    c.edi(0)
    c.esi(0)
    c.syscall(_SETPGID)
    c.syscall(_GETPID)
    c.emit(b"\x89\x44\x24\x10")  # mov [rsp+16], eax
    # that group in the foreground: fails where there is no terminal; SIGTTOU is blocked
    c.edi(0)
    c.esi(_TIOCSPGRP)
    c.emit(b"\x48\x8d\x54\x24\x10")  # lea rdx, [rsp+16]
    c.syscall(_IOCTL)
    # unblock
    c.emit(b"\x48\xc7\x04\x24\x00\x00\x00\x00")  # mov qword [rsp], 0
    c.edi(2)
    c.emit(b"\x48\x89\xe6")  # mov rsi, rsp
    c.edx(0)
    c.r10d(8)
    c.syscall(_RT_SIGPROCMASK)
    c.emit(b"\x48\x8b\x7b\x08")  # mov rdi, [rbx+8]         program
    c.emit(b"\x48\x8d\x73\x10")  # lea rsi, [rbx+16]        its argv
    c.emit(b"\x4c\x89\xe2")  # mov rdx, r12
    c.syscall(_EXECVE)
    c.edi(127)
    c.emit(b"\x83\xf8\xfe")  # cmp eax, -ENOENT
    c.jump(_JE, "leave")
    c.edi(126)
    c.label("leave")
    c.syscall(_EXIT_GROUP)
    c.label("bad")
    c.edi(125)
    c.syscall(_EXIT_GROUP)
    return c.finish()


def init_elf() -> bytes:
    """The whole ELF executable (elf(5)): one readable and executable segment, a stack that is not executable."""
    text = _text()
    size = _HEADERS + len(text)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + text


@once
def init_program() -> int:
    """A sealed memory file with the program, made once per process. Raises Unsupported elsewhere than x86-64."""
    if MACHINE != "x86_64":
        raise Unsupported(f"there is no init program for {MACHINE}", code="no-init")
    fd = memory_files.memfd_executable("proa-init")
    os.write(fd, init_elf())
    os.fchmod(fd, 0o511)
    memory_files.seal(fd)
    return fd
