"""What one start of a container needs of the networks it joins."""

from __future__ import annotations

import os
from collections.abc import Mapping

from proa.monitor.nursery import NetworkNamespace

__all__ = ["Joined"]


class Joined:
    """Descriptors to hand over (closed by `close`) and generated files.

    namespace: None for one of its own, "host", or the path of one to join. netns: one made beforehand, with the user
    namespace it belongs to if that was made with it.
    """

    def __init__(
        self,
        namespace: str | None,
        hostname: str,
        files: dict[str, bytes],
        netns: NetworkNamespace | None = None,
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        self.namespace = namespace
        self.hostname = hostname
        self.files = files
        self.sysctls = sysctls or {}
        self.netns_fd = netns.netns_fd if netns is not None else -1
        self.userns_fd = netns.userns_fd if netns is not None else -1
        self._fds = [fd for fd in netns or () if fd >= 0]

    def close(self) -> None:
        """Close the descriptors."""
        while self._fds:
            os.close(self._fds.pop())
