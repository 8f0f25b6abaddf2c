"""The kernel's refusals as kinds of errors, with what to do about them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from proa.errors import Denied, Exhausted, Internal, ProaError, Unsupported
from proa.network.netlink import NetlinkFailure

__all__ = ["explained"]


@contextmanager
def explained(network: str) -> Iterator[None]:
    """Turn a NetlinkFailure inside into Denied, Unsupported, Exhausted or Internal that names the network and the
    step."""
    try:
        yield
    except NetlinkFailure as error:
        raise _explain(error, network) from error


def _explain(error: NetlinkFailure, network: str) -> ProaError:
    text = f"network {network}: {error.strerror}"
    number = error.errno or 0
    if number in {errno.EPERM, errno.EACCES}:
        return Denied(text, code="network-denied", subject=network, hint="the engine needs CAP_NET_ADMIN", errno=number)
    if number in {errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}:
        hint = "the kernel needs bridge, veth and nf_tables (inet family, nat, fib); or use --network none or host"
        return Unsupported(text, code="network-unsupported", subject=network, hint=hint, errno=number)
    if number in {errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EXFULL, errno.E2BIG}:
        return Exhausted(text, code="network-exhausted", subject=network, errno=number)
    return Internal(text, code="network-kernel", subject=network, errno=number)
