"""An assembler for the classic BPF of seccomp (bpf(4), linux/filter.h): forward jumps to labels, any distance.

A conditional jump reaches 255 instructions; where the target is further, an unconditional jump is put in between. All
jumps go forward, so the program is laid out from its end and every distance is known when it is needed.

An end that is jumped to, and not run into, is the nearest further down that gives the same. The kernel translates each
instruction for every process that loads the program: 0.3 us each, and half of the default filter's 650 were ends.
"""

from __future__ import annotations

from proa.errors import Unsupported
from proa.linux.seccomp import BPF_MAXINSNS, SOCK_FILTER
from proa.linux.tuples import NamedTuple

LD_ABS = 0x20
RET = 0x06
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
JSET = 0x45
AND = 0x54

# struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }
NR, ARCH = 0, 4

# How far down an end may be to be taken for another: a jump to it, from further up, should reach it, too.
SHARED_WITHIN = 200


def arg_low(index: int) -> int:
    """Offset of the low word of an argument (little-endian machines only, as all that proa runs on)."""
    return 16 + 8 * index


def arg_high(index: int) -> int:
    """Offset of the high word of an argument."""
    return 20 + 8 * index


class Instruction(NamedTuple):
    """One line of assembly: a plain instruction, a jump (with labels), or a label alone (code -1)."""

    code: int
    k: int
    yes: str = ""
    no: str = ""


class Assembler:
    """Collects lines in program order. Labels are strings; `label()` makes fresh ones."""

    def __init__(self) -> None:
        self._lines: list[Instruction] = []
        self._count = 0

    def label(self) -> str:
        """A new label, to be put somewhere later by `place`."""
        self._count += 1
        return f"L{self._count}"

    def place(self, label: str) -> None:
        """The next instruction is where `label` leads."""
        self._lines.append(Instruction(-1, 0, label))

    def load(self, offset: int) -> None:
        """Load a word of seccomp_data."""
        self._lines.append(Instruction(LD_ABS, offset))

    def mask(self, k: int) -> None:
        """Keep the bits of `k`."""
        self._lines.append(Instruction(AND, k))

    def give(self, action: int) -> None:
        """End with an action."""
        self._lines.append(Instruction(RET, action))

    def jump(self, code: int, k: int, yes: str, no: str) -> None:
        """Compare the loaded word with `k` and go on at one of two labels further down."""
        self._lines.append(Instruction(code, k, yes, no))

    def assemble(self) -> bytes:
        """The program as packed sock_filter records. Raises Unsupported when it is longer than the kernel takes."""
        reverse: list[bytes] = []
        places: dict[str, int] = {}
        ends: dict[int, int] = {}  # where the nearest end with an action is
        here = 0  # where a label leads
        for index in range(len(self._lines) - 1, -1, -1):
            line = self._lines[index]
            if line.code == -1:
                places[line.yes] = here
                continue
            if line.code == RET:
                end = ends.get(line.k)
                if end is not None and len(reverse) - end < SHARED_WITHIN and not self._run_into(index):
                    here = end
                    continue
                ends[line.k] = len(reverse) + 1
            if line.code in (LD_ABS, AND, RET):
                reverse.append(SOCK_FILTER.pack(line.code, 0, 0, line.k))
            else:
                far_no = len(reverse) - places[line.no] > 254
                no = self._near(reverse, places[line.no]) if far_no else places[line.no]
                far_yes = len(reverse) - places[line.yes] > 254
                yes = self._near(reverse, places[line.yes]) if far_yes else places[line.yes]
                at = len(reverse)
                reverse.append(SOCK_FILTER.pack(line.code, at - yes, at - no, line.k))
            here = len(reverse)
        if len(reverse) > BPF_MAXINSNS:
            raise Unsupported(
                f"the seccomp profile needs {len(reverse)} instructions, the kernel takes {BPF_MAXINSNS}",
                code="seccomp-too-long",
            )
        return b"".join(reversed(reverse))

    def _run_into(self, index: int) -> bool:
        """Whether the program gets to a line without a jump; from a conditional jump it never does."""
        index -= 1
        while index >= 0 and self._lines[index].code == -1:
            index -= 1
        return index < 0 or self._lines[index].code in (LD_ABS, AND)

    @staticmethod
    def _near(reverse: list[bytes], place: int) -> int:
        """Add an unconditional jump to `place` and return its own place."""
        reverse.append(SOCK_FILTER.pack(JA, 0, 0, len(reverse) - place))
        return len(reverse)
