"""The netlink wire format and a socket that speaks it (netlink(7), linux/netlink.h).

A message is a 16-byte header, a family header and attributes; an attribute is a length, a type and a payload padded to
4 bytes. That is all there is, so it is written here instead of importing a library: attaching a container is on the
path of every start, and the smallest import of the usual library costs 130 ms and 300 modules.

    engine                                   kernel
    request(step, step, ...)   ------>       each message runs in order, inside sendmsg
                               <------       one NLMSG_ERROR per message: errno 0 is its acknowledgement
    dump(step)                 ------>
                               <------       many messages, then NLMSG_DONE
    transaction(step, ...)     ------>       nfnetlink only: batch begin, messages, batch end; all or nothing
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

__all__ = [
    "NETLINK_NETFILTER",
    "NETLINK_ROUTE",
    "NLM_F_REPLACE",
    "Channel",
    "NetlinkFailure",
    "Step",
    "attribute",
    "attributes",
    "be32",
    "nested",
    "text",
    "u8",
    "u16",
    "u32",
]

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ACK_TLVS = 0x200
NLM_F_CAPPED = 0x100
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_REPLACE = 0x100
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
NLMSGERR_ATTR_MSG = 1

NFNL_MSG_BATCH_BEGIN = 16
NFNL_MSG_BATCH_END = 17
NFNL_SUBSYS_NFTABLES = 10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
# A dump's answer is cut into pieces of at most 32 KiB (netlink_recvmsg grows its buffer to what the reader offers).
_RECEIVE_BYTES = 64 * 1024
_BATCH_EDGE = struct.pack("=BBH", 0, 0, socket.htons(NFNL_SUBSYS_NFTABLES))


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute of type `kind`, padded to four bytes."""
    size = len(payload) + 4
    return _ATTRIBUTE.pack(size, kind) + payload + b"\0" * (-size & 3)


def nested(kind: int, *children: bytes) -> bytes:
    """An attribute whose payload is attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """A 16-bit attribute in host order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in host order: rtnetlink's numbers."""
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network order: nf_tables' numbers (negative ones are verdicts)."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def attributes(body: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes of `body` from `offset` on, by type without flags; a repeated type keeps its last payload."""
    found: dict[int, bytes] = {}
    end = len(body)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(body, offset)
        if size < 4 or offset + size > end:
            break
        found[kind & NLA_TYPE_MASK] = body[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


class Step(NamedTuple):
    """One message to send: `what` says in words what it does, for the error text."""

    what: str
    kind: int
    flags: int
    body: bytes


class NetlinkFailure(OSError):
    """The kernel refused a message: errno, and a text that names the step and the kernel's own explanation."""

    def __init__(self, what: str, number: int, explanation: str = "") -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}" + (f" ({explanation})" if explanation else ""))
        self.what = what
        self.explanation = explanation


class _Acknowledgement(NamedTuple):
    sequence: int
    number: int
    explanation: str


class Channel:
    """A netlink socket with request, dump and transaction; not thread-safe, its owner holds a lock.

    A socket belongs to the network namespace it was made in, so a channel over a descriptor from another namespace
    configures that namespace without anyone entering it.
    """

    def __init__(self, protocol: int, *, fd: int | None = None) -> None:
        """Open a socket of `protocol` in the calling thread's network namespace, or use (a duplicate of) `fd`."""
        if fd is None:
            try:
                self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            except OSError as error:
                raise NetlinkFailure("open a netlink socket", error.errno or errno.EPROTONOSUPPORT) from error
        else:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=os.dup(fd))
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            try:
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:  # before Linux 4.12: errors come without an explanation
                pass
        # Never wait for ever: the kernel answers inside sendmsg, so a missing answer is a lost one. The kernel's own
        # timer, because Python's would poll before each call and make a shared descriptor non-blocking.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 5, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close our descriptor (a given one stays open)."""
        self._socket.close()

    def address(self) -> int:
        """The address of this socket; notifications carry their author's."""
        self._socket.bind((0, 0))
        return int(self._socket.getsockname()[0])

    def request(self, *steps: Step) -> None:
        """Run the steps in order; the kernel goes on after a failure, the first one is raised as NetlinkFailure."""
        first = self._sequence + 1
        self._send(
            [_message(step.kind, step.flags | NLM_F_REQUEST | NLM_F_ACK, self._next(), step.body) for step in steps]
        )
        failed: _Acknowledgement | None = None
        pending = set(range(first, first + len(steps)))
        while pending:
            for _, _, sequence, body in self._receive():
                if sequence in pending:
                    pending.discard(sequence)
                    answer = _acknowledgement(sequence, body)
                    if answer.number and (failed is None or sequence < failed.sequence):
                        failed = answer
        if failed is not None:
            raise NetlinkFailure(steps[failed.sequence - first].what, failed.number, failed.explanation)

    def get(self, step: Step) -> bytes:
        """The body of the one message that answers `step`; raises NetlinkFailure."""
        sequence = self._next()
        self._send([_message(step.kind, step.flags | NLM_F_REQUEST, sequence, step.body)])
        while True:
            for kind, _, number, body in self._receive():
                if number != sequence:
                    continue
                if kind == NLMSG_ERROR:
                    answer = _acknowledgement(number, body)
                    raise NetlinkFailure(step.what, answer.number or errno.EPROTO, answer.explanation)
                return body

    def dump(self, step: Step) -> list[bytes]:
        """The bodies of all messages that answer `step`; a dump the kernel says was torn is taken again."""
        for _ in range(10):
            bodies = self._dump_once(step)
            if bodies is not None:
                return bodies
        raise NetlinkFailure(step.what, errno.EINTR, "the list kept changing while it was read")

    def _dump_once(self, step: Step) -> list[bytes] | None:
        sequence = self._next()
        self._send([_message(step.kind, step.flags | NLM_F_REQUEST | NLM_F_DUMP, sequence, step.body)])
        bodies: list[bytes] = []
        torn = False
        while True:
            for kind, flags, number, body in self._receive():
                if number != sequence:
                    continue
                torn = torn or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    late = _acknowledgement(number, body) if len(body) >= 4 else None
                    if late is not None and late.number > 0:
                        raise NetlinkFailure(step.what, late.number, late.explanation)
                    return None if torn else bodies
                if kind == NLMSG_ERROR:
                    answer = _acknowledgement(number, body)
                    raise NetlinkFailure(step.what, answer.number or errno.EPROTO, answer.explanation)
                bodies.append(body)

    def transaction(self, steps: Sequence[Step]) -> None:
        """Run nf_tables steps as one atomic change; nothing happened when NetlinkFailure is raised."""
        if not steps:
            return
        begin = self._next()
        parts = [_message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, begin, _BATCH_EDGE)]
        for position, step in enumerate(steps, 1):
            last = NLM_F_ACK if position == len(steps) else 0
            parts.append(_message(step.kind, step.flags | NLM_F_REQUEST | last, self._next(), step.body))
        parts.append(_message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, self._next(), _BATCH_EDGE))
        self._send(parts)
        failed: _Acknowledgement | None = None
        acknowledged = False
        while not acknowledged and failed is None:
            # All answers of a batch are queued before sendmsg returns, in the order of the messages.
            for kind, _, sequence, body in self._receive():
                if kind != NLMSG_ERROR or not begin <= sequence <= self._sequence:
                    continue
                answer = _acknowledgement(sequence, body)
                if answer.number and failed is None:
                    failed = answer
                elif not answer.number and sequence == begin + len(steps):
                    acknowledged = True
        if failed is not None:
            self._drain()
            position = failed.sequence - begin - 1
            what = steps[position].what if 0 <= position < len(steps) else f"change {steps[0].what}"
            raise NetlinkFailure(what, failed.number, failed.explanation)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        return self._sequence

    def _send(self, parts: list[bytes]) -> None:
        data = b"".join(parts)
        if len(data) > 128 * 1024:
            # A large batch must fit the send buffer in one piece; root may pass net.core.wmem_max.
            so_sndbufforce = 32
            self._socket.setsockopt(socket.SOL_SOCKET, so_sndbufforce, 2 * len(data))
        self._socket.sendto(data, (0, 0))

    def _drain(self) -> None:
        try:
            while self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            pass

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + 16 <= len(data):
            size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if size < 16:
                break
            yield kind, flags, sequence, data[offset + 16 : offset + size]
            offset += (size + 3) & ~3


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body + b"\0" * (-len(body) & 3)


def _acknowledgement(sequence: int, body: bytes) -> _Acknowledgement:
    """An NLMSG_ERROR body: the negative errno, our header (NETLINK_CAP_ACK left the rest out), attributes."""
    number = -struct.unpack_from("=i", body)[0]
    explanation = ""
    if number and len(body) > 20:
        explanation = attributes(body, 20).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return _Acknowledgement(sequence, number, explanation)
