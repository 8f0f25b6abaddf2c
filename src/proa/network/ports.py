"""Host ports of published container ports, each held by a bound socket for as long as it is published.

The kernel is the allocator: a port that our socket holds cannot be taken by another program, a port another program
holds cannot be taken by us, and nothing is left to clean up when the engine dies. Packets never reach these sockets,
nf_tables redirects them first; a filter drops what arrives while the table is away, so that no client connects to a
dead end.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from proa.errors import Conflict, Denied, Invalid, ProaError, Unsupported
from proa.network.endpoint import PROTOCOL_NUMBERS, PortRequest, PublishedPort
from proa.network.relay import Relay, carried

__all__ = ["PortHolders"]

_SO_ATTACH_FILTER = 26
_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104
_BPF_RETURN_0 = struct.pack("=HBBI", 0x06, 0, 0, 0)
_IN_USE = {errno.EADDRINUSE}
# A port the kernel chose at one address may be taken at the other.
_TRIES = 16


class PortHolders:
    """The sockets that hold one network's host ports. Not thread-safe, its network holds a lock."""

    def __init__(self, relay: Relay | None = None) -> None:
        """relay: what carries ports that the kernel does not redirect."""
        self._held: dict[PublishedPort, socket.socket | None] = {}
        self._relay = relay

    def door(self, port: PublishedPort) -> socket.socket | None:
        """The socket of a port that a relay carries."""
        return self._held.get(port) if carried(self._relay, port.protocol, port.host_ip) else None

    def reserve(
        self, request: PortRequest, host_ips: Sequence[str], owner: str, container_ip: str
    ) -> list[PublishedPort]:
        """Bind the host port a request asks for at every address and hold it; the same number at all of them.

        owner: how error texts name the endpoint. Raises Conflict (code `port-allocated`), Invalid, Denied.
        """
        request.check()
        addresses = [_host_address(host_ip, relayed=self._relay is not None) for host_ip in host_ips]
        chosen_by_kernel = request.host_port == 0
        candidates = [0] * _TRIES if chosen_by_kernel else _range(request)
        refusal: ProaError | None = None
        for number in candidates:
            held: list[PublishedPort] = []
            try:
                for address in addresses:
                    held.append(self._hold(request, address, held[0].host_port if held else number))
                return held
            except OSError as error:
                self.release(held)
                tried = held[0].host_port if held else number
                where = addresses[len(held)]
                refusal = self._refusal(error, request, where, tried, owner, container_ip)
                if error.errno not in _IN_USE:
                    break
        assert refusal is not None
        raise refusal

    def adopt(self, port: PublishedPort) -> bool:
        """Hold a port that rules in the kernel publish already; False when another program took it meanwhile."""
        if port in self._held:
            return True
        request = PortRequest(container_port=port.container_port, protocol=port.protocol)
        try:
            if self._relay is not None and carried(self._relay, port.protocol, port.host_ip):
                door = self._relay.regain(port)
                if door is not None:
                    self._held[port] = door
                    return True
            self._hold(request, port.host_ip, port.host_port)
        except OSError:
            return False
        return True

    def release(self, ports: Iterable[PublishedPort]) -> None:
        """Let go of ports; those not held are fine."""
        for port in ports:
            holder = self._held.pop(port, None)
            if holder is not None:
                if self._relay is not None and carried(self._relay, port.protocol, port.host_ip):
                    self._relay.shut(port)
                holder.close()

    def close(self) -> None:
        """Close our sockets; a relay goes on with its own."""
        for holder in self._held.values():
            if holder is not None:
                holder.close()
        self._held = {}

    def _hold(self, request: PortRequest, host_ip: str, number: int) -> PublishedPort:
        holder: socket.socket | None
        if request.protocol == "sctp":
            if self._relay is not None and (self._relay.everything or host_ip == "::1"):
                raise OSError(errno.EPROTONOSUPPORT, "sctp cannot be relayed")
            number = self._free_sctp(host_ip, number)
            holder = None
        elif self._relay is not None and carried(self._relay, request.protocol, host_ip):
            holder = self._relay.bind(request.protocol, host_ip, number)
            number = holder.getsockname()[1]
        else:
            holder = _bind(request.protocol, host_ip, number)
            number = holder.getsockname()[1]
        port = PublishedPort(
            container_port=request.container_port, protocol=request.protocol, host_ip=host_ip, host_port=number
        )
        self._held[port] = holder
        return port

    def _free_sctp(self, host_ip: str, number: int) -> int:
        """sctp sockets are a module most hosts lack, so only our own ports are checked."""
        for candidate in (number,) if number else range(49152, 65536):
            if self._holding("sctp", host_ip, candidate) is None:
                return candidate
        raise OSError(errno.EADDRINUSE, "sctp port")

    def _holding(self, protocol: str, host_ip: str, number: int) -> PublishedPort | None:
        for port in self._held:
            version = ip_address(host_ip).version
            same_address = host_ip == port.host_ip or (
                version == ip_address(port.host_ip).version and _ANY[version] in {host_ip, port.host_ip}
            )
            if port.protocol == protocol and port.host_port == number and same_address:
                return port
        return None

    def _refusal(
        self, error: OSError, request: PortRequest, host_ip: str, number: int, owner: str, container_ip: str
    ) -> ProaError:
        prefix = f"driver failed programming external connectivity on endpoint {owner}: "
        where = f"[{host_ip}]:{number}" if ":" in host_ip else f"{host_ip}:{number}"
        if error.errno in _IN_USE and self._holding(request.protocol, host_ip, number) is not None:
            text = f"{prefix}Bind for {where} failed: port is already allocated"
            return Conflict(text, code="port-allocated", subject=where, hint="choose another host port")
        text = (
            f"{prefix}failed to bind host port for {where}:{container_ip}:{request.container_port}/{request.protocol}: "
        )
        if error.errno in _IN_USE:
            hint = f"another program of this host listens there: ss -lnp 'sport = :{number}'"
            return Conflict(f"{text}address already in use", code="port-allocated", subject=where, hint=hint)
        if error.errno == errno.EADDRNOTAVAIL:
            text += "cannot assign requested address"
            return Invalid(text, code="address-not-here", subject=where, hint="this host has no such address")
        if error.errno in {errno.EACCES, errno.EPERM}:
            hint = ""
            if self._relay is not None and self._relay.everything and number:
                hint = (
                    "ports below net.ipv4.ip_unprivileged_port_start (1024) are root's: choose a higher host port, or "
                    f"have root lower it: sysctl net.ipv4.ip_unprivileged_port_start={number}"
                )
            return Denied(f"{text}permission denied", code="port-denied", subject=where, hint=hint)
        if error.errno == errno.EPROTONOSUPPORT:
            return Unsupported(f"{text}a relay carries tcp and udp only", code="port-relayed", subject=where)
        return Conflict(f"{text}{error.strerror}", code="port-bind", subject=where, errno=error.errno)


def _host_address(text: str, *, relayed: bool) -> str:
    """The address in its canonical spelling. Raises Invalid."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise Invalid(f"invalid IP address: {text!r}", code="address-syntax", subject=text) from error
    if address.version == 6 and address.is_loopback and not relayed:
        raise Unsupported(
            "cannot publish on ::1: Linux does not redirect IPv6 loopback traffic",
            code="loopback-publish",
            subject=text,
            hint="publish on 127.0.0.1",
        )
    if getattr(address, "scope_id", None):
        raise Invalid(f"invalid IP address: {text!r}: ports are published without a zone", code="address-syntax")
    return str(address)


def _range(request: PortRequest) -> Sequence[int]:
    return range(request.host_port, max(request.host_port, request.host_port_end) + 1)


def _bind(protocol: str, host_ip: str, number: int) -> socket.socket:
    """A bound socket that takes nothing in; a tcp one listens, or another with SO_REUSEADDR could share the port."""
    tcp = protocol == "tcp"
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, PROTOCOL_NUMBERS[protocol])
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        program = ctypes.create_string_buffer(_BPF_RETURN_0)
        holder.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))
        if tcp and number:
            # Connections of an earlier listener in TIME_WAIT must not keep the port from us.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host_ip, number))
        if tcp:
            holder.listen(1)
    except BaseException:
        holder.close()
        raise
    return holder
