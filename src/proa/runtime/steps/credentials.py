"""Who the process is and what it may do: user, groups, capabilities, no_new_privs, seccomp (credentials(7))."""

from __future__ import annotations

import errno
import os
import stat

from proa.errors import Invalid, Unsupported
from proa.linux import capability as c
from proa.linux import process as p
from proa.linux.once import once
from proa.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, seccomp_set_filter
from proa.runtime.root import open_directory
from proa.runtime.steps.step import Init, Step
from proa.runtime.users import resolve_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class ResolveUser(Step):
    """Find ids, groups and home directory of the user, by name in the container's own files or as given."""

    __slots__ = ("gid", "gids", "group_add", "uid", "username")
    name = "finding the user"

    def __init__(self, username: str | None, group_add: Sequence[str], uid: int, gid: int, gids: Sequence[int]) -> None:
        self.username = username
        self.group_add = tuple(group_add)
        self.uid = uid
        self.gid = gid
        self.gids = tuple(gids)

    def describe(self) -> str:
        if self.username is not None:
            return f"look up user {self.username or 'root'!r} in the container"
        return f"run as {self.uid}:{self.gid}"

    def execute(self, init: Init) -> None:
        spec = self.username if self.username is not None else f"{self.uid}:{self.gid}"
        user = resolve_user(init.root_fd, spec, self.group_add)
        init.uid, init.gid, init.home = user.uid, user.gid, user.home
        # The primary group is always listed too: else files that deny it could be read (CVE-2022-36109).
        init.gids = list(dict.fromkeys((user.gid, *self.gids, *user.gids)))


class CreateWorkingDirectory(Step):
    """Make the working directory when the image lacks it, inside the root only (CVE-2025-9566)."""

    __slots__ = ("path",)
    name = "creating the working directory"

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"create {self.path} when missing"

    @property
    def subject(self) -> str:
        return self.path

    def execute(self, init: Init) -> None:
        try:
            if stat.S_ISDIR(os.stat(self.path).st_mode):
                return  # by whatever links: entering it is checked again, by then without privileges over the host
        except OSError:
            pass
        os.close(open_directory(init.root_fd, self.path, create_mode=0o755))


@once
def _one_group() -> bool:
    """Whether this is the user namespace of an unprivileged user without ranges, where groups cannot be set."""
    with open("/proc/self/setgroups", "rb") as file:
        return file.read().strip() == b"deny"


_last_capability = once(c.last_capability)


class NoNewPrivileges(Step):
    """From now on execve grants nothing: setuid bits and file capabilities are ignored."""

    __slots__ = ()
    name = "setting no_new_privs"

    def execute(self, init: Init) -> None:
        p.prctl(p.PR_SET_NO_NEW_PRIVS, 1)


class FilterSystemCalls(Step):
    """Attach the seccomp filter."""

    __slots__ = ("flags", "program")
    name = "attaching the seccomp filter"

    def __init__(self, program: bytes, flags: int) -> None:
        self.program = program
        self.flags = flags

    def describe(self) -> str:
        return f"attach a seccomp filter of {len(self.program) // 8} instructions"

    def execute(self, init: Init) -> None:
        listener = seccomp_set_filter(self.program, self.flags)
        if self.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
            # Whoever starts this process fetches the listener and passes it on to who will answer.
            os.write(init.channel.fd, b"S%d" % listener)
            if not os.read(init.channel.fd, 16):
                raise Unsupported("nobody takes the seccomp listener", code="seccomp-listener")


class DropBounding(Step):
    """Give up capabilities for good."""

    __slots__ = ("drop", "keep")
    name = "dropping capabilities"

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.drop = [number for number in range(_last_capability() + 1) if not keep >> number & 1]

    def describe(self) -> str:
        return f"limit capabilities to {self.keep:016x}"

    def execute(self, init: Init) -> None:
        c.clear_ambient()
        for number in self.drop:
            c.drop_bounding(number)


class BecomeUser(Step):
    """Take on groups, user and capabilities, in the order that leaves no way back."""

    __slots__ = ("ambient", "effective", "inheritable", "one_group", "permitted", "umask")
    name = "becoming the user"

    def __init__(self, effective: int, permitted: int, inheritable: int, ambient: int, umask: int) -> None:
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient
        self.one_group = _one_group()
        self.umask = umask

    def describe(self) -> str:
        return f"become the user with capabilities {self.effective:016x}"

    def execute(self, init: Init) -> None:
        p.prctl(p.PR_SET_KEEPCAPS, 1)
        try:
            if init.gids != [0] or not self.one_group:
                os.setgroups(init.gids)
            os.setresgid(init.gid, init.gid, init.gid)
            os.setresuid(init.uid, init.uid, init.uid)
        except OSError as error:
            if error.errno != errno.EINVAL and not self.one_group:
                raise
            who = ":".join(str(number) for number in (init.uid, *init.gids))
            text = f"not every id of the user {who} exists in the container's user namespace"
            raise Invalid(text, code="id-not-mapped", subject=who) from None
        p.prctl(p.PR_SET_KEEPCAPS, 0)
        # A change of ids may have made this process dumpable, hence traceable by the container's processes.
        p.prctl(p.PR_SET_DUMPABLE, 0)
        held = c.capget()[1]
        permitted = self.permitted & held
        if init.uid and not self.ambient:
            # execve of another user than root ends with no capabilities anyway.
            effective = permitted = 0
        else:
            effective = self.effective & permitted
        c.capset(effective, permitted, self.inheritable & held)
        ambient = self.ambient & held
        for number in range(ambient.bit_length()):
            if ambient >> number & 1:
                c.raise_ambient(number)
        os.umask(self.umask)
