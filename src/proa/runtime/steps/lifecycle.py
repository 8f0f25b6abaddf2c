"""Points of the lifecycle at which a container's first process waits for others, or runs hooks itself."""

from __future__ import annotations

import _socket
import os

from proa.errors import Cancelled
from proa.linux import process as p
from proa.runtime.channel import Channel
from proa.runtime.hooks import Hook, run_hooks
from proa.runtime.steps.command import find_program
from proa.runtime.steps.step import Init, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STATE_LIMIT = 128 << 10


class AwaitHooks(Step):
    """Have the creator run its hooks, now that namespaces and mounts are there; it answers with the state."""

    __slots__ = ()
    name = "waiting for the hooks"

    def execute(self, init: Init) -> None:
        os.write(init.channel.fd, b"H")
        answer = os.read(init.channel.fd, STATE_LIMIT + 1)
        if not answer:
            raise Cancelled("whoever creates the container is gone", code="creator-gone")
        init.state = answer[1:]


class RunHooks(Step):
    """Run hooks in the container's namespaces; before the pivot they are the host's files, after it the container's."""

    __slots__ = ("hooks", "kind")
    name = "running hooks"

    def __init__(self, kind: str, hooks: Sequence[Hook]) -> None:
        self.kind = kind
        self.hooks = tuple(hooks)

    def describe(self) -> str:
        return f"run {self.kind} hooks {' '.join(hook.path for hook in self.hooks)}"

    def execute(self, init: Init) -> None:
        run_hooks(self.kind, self.hooks, init.state)


class FindCommand(Step):
    """Fail at creation for a command that is not there, and not only at the start."""

    __slots__ = ("command", "path")
    name = "finding the command"

    def __init__(self, command: str, path: str) -> None:
        self.command = command
        self.path = path

    def execute(self, init: Init) -> None:
        if self.command.startswith("/") or "/" not in self.command:  # else it is below the working directory
            find_program(self.command, self.path)


class AwaitStart(Step):
    """Tell the creator that all is prepared, and wait until somebody connects to the socket and says to start.

    From then on the channel is that connection: who starts the container hears of warnings and errors, and of success
    by its end. What is between here and execve has not been done yet, so that nothing depends on the container's
    system call filter or user while this process waits. It cannot be traced meanwhile.
    """

    __slots__ = ("listener",)
    name = "waiting for the start"

    def __init__(self, listener: int) -> None:
        self.listener = listener

    def execute(self, init: Init) -> None:
        listener = _socket.socket(fileno=self.listener)
        p.prctl(p.PR_SET_PDEATHSIG, 0)
        init.channel.ready()
        init.channel.socket.close()
        state = b""
        while not state:
            fd, _address = listener._accept()  # type: ignore[attr-defined]
            connection = _socket.socket(fileno=fd)
            # Nobody but root gets to the socket; one who connects and says nothing is not heard.
            state = connection.recv(STATE_LIMIT)
        init.state = state
        init.channel = Channel(connection)
