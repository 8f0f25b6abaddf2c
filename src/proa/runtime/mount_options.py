"""Mount options as config.json spells them, sorted into what the kernel takes where (runtime-spec, mount(8))."""

from __future__ import annotations

from proa.errors import Invalid, Unsupported
from proa.linux import mount as m
from proa.linux.tuples import NamedTuple
from proa.runtime.defaults import CHOWN, SUBPATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class MountOptions(NamedTuple):
    """Options of one mount.

    attr_set, attr_clr:         MOUNT_ATTR_* of the mount itself.
    rec_set, rec_clr:           the same for the whole tree of a recursive bind (`rro`, …).
    bind, recursive:            whether it is a bind, and of a tree.
    propagation:                (MS_* kind, recursive) in order.
    settings:                   what the file system itself gets: (key, value) or (key, None) for a flag.
    copy_up:                    whether a new tmpfs begins with what it covers.
    remount:                    whether only attributes of a mount that is there already change.
    idmap:                      "idmap" or "ridmap": show a bind's ids through the maps of a user namespace; or "".
    subpath:                    what of the source to mount, found without leaving it; "" for all.
    chown:                      give all files to the container's user.
    """

    attr_set: int
    attr_clr: int
    rec_set: int
    rec_clr: int
    bind: bool
    recursive: bool
    propagation: tuple[tuple[int, bool], ...]
    settings: tuple[tuple[str, str | None], ...]
    idmap: str = ""
    copy_up: bool = False
    remount: bool = False
    subpath: str = ""
    chown: bool = False

    @property
    def readonly(self) -> bool:
        """Whether the mount is to be read-only."""
        return bool((self.attr_set | self.rec_set) & m.MOUNT_ATTR_RDONLY)

    @property
    def shared(self) -> bool:
        """Whether mounts are to spread between the container and the host."""
        return any(kind == m.MS_SHARED for kind, _recursive in self.propagation)


# option: (attributes to set, attributes to clear)
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nostrictatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
}
_RECURSIVE_ATTRIBUTES = {"r" + name: masks for name, masks in _ATTRIBUTES.items()}

PROPAGATION: dict[str, tuple[int, bool]] = {
    "private": (m.MS_PRIVATE, False),
    "rprivate": (m.MS_PRIVATE, True),
    "slave": (m.MS_SLAVE, False),
    "rslave": (m.MS_SLAVE, True),
    "shared": (m.MS_SHARED, False),
    "rshared": (m.MS_SHARED, True),
    "unbindable": (m.MS_UNBINDABLE, False),
    "runbindable": (m.MS_UNBINDABLE, True),
}
_OTHERS = frozenset({"bind", "rbind", "idmap", "ridmap", "tmpcopyup", "remount"})
_IGNORED = frozenset(
    {"defaults", "async", "silent", "loud", "nofail", "auto", "noauto", "user", "nouser", "mand", "nomand"}
)
_REFUSED = frozenset({"move", "copy-symlink"})
# What a file system as a whole is told, and so not a bind of it.
_OF_FILE_SYSTEMS = frozenset({"sync", "dirsync", "lazytime", "nolazytime", "iversion", "noiversion", "acl", "noacl"})


def known() -> list[str]:
    """Every option that means something here; others are left to the file system."""
    return sorted({*_ATTRIBUTES, *_RECURSIVE_ATTRIBUTES, *PROPAGATION, *_IGNORED, *_OTHERS})


def parse_mount_options(options: Sequence[str], where: str) -> MountOptions:
    """Sort `options`. Raises Invalid for ones a bind cannot have and Unsupported for ones proa does not do."""
    attr_set = attr_clr = rec_set = rec_clr = 0
    bind = recursive = False
    idmap = subpath = ""
    copy_up = remount = chown = False
    propagation: list[tuple[int, bool]] = []
    settings: list[tuple[str, str | None]] = []
    for option in options:
        if option in _ATTRIBUTES:
            add, remove = _ATTRIBUTES[option]
            attr_set, attr_clr = attr_set & ~remove | add, attr_clr & ~add | remove
        elif option in _RECURSIVE_ATTRIBUTES:
            add, remove = _RECURSIVE_ATTRIBUTES[option]
            rec_set, rec_clr = rec_set & ~remove | add, rec_clr & ~add | remove
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in ("bind", "rbind"):
            bind, recursive = True, recursive or option == "rbind"
        elif option in ("idmap", "ridmap"):
            idmap = option
        elif option == "tmpcopyup":
            copy_up = True
        elif option == "remount":
            remount = True
        elif option.startswith(f"{SUBPATH}="):
            subpath = option.partition("=")[2]
        elif option == CHOWN:
            chown = True
        elif option in _REFUSED or option.partition("=")[0] in _REFUSED:
            raise Unsupported(
                f"mount option `{option}` of {where} is not supported", code="mount-option", subject=where
            )
        elif option and option not in _IGNORED:
            key, separator, value = option.partition("=")
            if len(value.encode()) > 255 or "\0" in option:
                raise Invalid(f"mount option `{key}` of {where} is too long", code="mount-option", subject=where)
            settings.append((key, value if separator else None))
    if bind:
        settings = [setting for setting in settings if setting[0] not in _OF_FILE_SYSTEMS]
    if bind and settings:
        names = ", ".join(key for key, _value in settings)
        raise Invalid(f"a bind mount cannot have the options {names} ({where})", code="mount-option", subject=where)
    return MountOptions(
        attr_set=attr_set,
        attr_clr=attr_clr,
        rec_set=rec_set,
        rec_clr=rec_clr,
        bind=bind,
        recursive=recursive,
        propagation=tuple(propagation),
        settings=tuple(settings),
        idmap=idmap,
        copy_up=copy_up,
        remount=remount,
        subpath=subpath,
        chown=chown,
    )
