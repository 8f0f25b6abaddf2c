"""`proa image diff|mount|unmount`: look into images."""

from __future__ import annotations

import os

from proa.cli.options import Command, UsageError
from proa.cli.output import emit, show_rows
from proa.client.caller import Caller
from proa.client.endpoint import locate, run_dir
from proa.client.http import query, quote
from proa.errors import Denied, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.cli.options import Options, Row, Settings

__all__ = ["DIFF", "MOUNT", "UNMOUNT"]

DIFF_ROWS: tuple[Row, ...] = (
    ("format", "", "text", "string", "Format output: json, or a Go template for each change"),
    ("platform", "", "text", "string", 'Look at this platform of a multi-platform image ("os/arch[/variant]")'),
)
MOUNT_ROWS: tuple[Row, ...] = (
    ("format", "", "text", "string", "Format output of the list: table, json, or a Go template"),
    ("platform", "", "text", "string", 'Mount this platform of a multi-platform image ("os/arch[/variant]")'),
)
UNMOUNT_ROWS: tuple[Row, ...] = (("all", "a", "flag", "", "Unmount all images"),)

# <sys/mount.h>
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND = 1, 2, 4, 32, 4096
# Their numbers are the same on every machine; <linux/mount.h>.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLOEXEC, _EMPTY_PATH, _HERE = 1, 4, -100
_ATTRIBUTES = 1 | 2 | 4  # read-only, no setuid, no devices
_EINVAL = 22
_MARKS = "CAD"


def _diff(settings: Settings, options: Options, words: list[str]) -> int:
    asked = {"platform": options.text("platform")}
    if len(words) > 1:
        asked["from"] = words[1]
    target = f"/proa/v1/images/{quote(words[0])}/changes{query(**asked)}"
    changes = Caller(locate(settings.host)).call("GET", target)
    if options.given("format"):
        from proa.cli.template import render_rows

        emit(render_rows(changes, options.text("format"), {}))
    else:
        emit("".join([f"{_MARKS[change['Kind']]} {change['Path']}\n" for change in changes]))
    return 0


def _mount(settings: Settings, options: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    if not words:
        rows = [
            {"ID": r["Id"].removeprefix("sha256:")[:12], "Image": r["Image"], "Target": r["Target"]}
            for r in caller.call("GET", "/proa/v1/image-mounts")
        ]
        show_rows(rows, (("ID", "IMAGE ID"), ("Image", "IMAGE"), ("Target", "TARGET")), template=options.text("format"))
        return 0
    if len(words) > 1:
        target = os.path.abspath(words[1])
    else:
        identity = str(caller.call("GET", f"/images/{quote(words[0])}/json")["Id"])
        target = os.path.join(run_dir(), "images", identity.removeprefix("sha256:")[:12])
        for directory in (os.path.dirname(target), target):  # makedirs would make the upper one for everybody to read
            os.makedirs(directory, mode=0o700, exist_ok=True)
    if not os.path.isdir(target):
        raise NotFound(f"there is no directory {target} to mount at", code="directory-not-found", subject=target)
    where = query(target=target, platform=options.text("platform"))
    mounts = caller.call("POST", f"/proa/v1/images/{quote(words[0])}/mount{where}")
    try:
        _mount_at(mounts[0], target)
    except BaseException:
        caller.fetch("DELETE", f"/proa/v1/image-mounts{query(target=target)}")
        raise
    emit(target + "\n")
    return 0


def _unmount(settings: Settings, options: Options, words: list[str]) -> int:
    caller = Caller(locate(settings.host))
    held = caller.call("GET", "/proa/v1/image-mounts")
    if bool(words) == options.flag("all"):
        raise UsageError("name images or directories to unmount, or use --all", 1)
    for word in words or [str(record["Target"]) for record in held]:
        path = os.path.abspath(word)
        targets = [r["Target"] for r in held if r["Target"] == path or (word in (r["Image"], r["Id"], r["Id"][7:19]))]
        if not targets:
            raise NotFound(f"no image is mounted as {word}", code="mount-not-found", subject=word)
        for target in targets:
            # A bind mount cannot be told by its device; EINVAL says that nothing is mounted there (any more).
            _call("umount2", os.fsencode(target), 0, doing=f"unmount {target}", fine=_EINVAL)
            caller.fetch("DELETE", f"/proa/v1/image-mounts{query(target=target)}")
            emit(target + "\n")
    return 0


def _mount_at(mount: dict[str, Any], target: str) -> None:
    """Make one mount of the engine's, in the mount namespace of this process. Raises Denied, Unsupported."""
    at, doing = os.fsencode(target), f"mount the image at {target}"
    flags = _RDONLY | _NOSUID | _NODEV
    if mount["Type"] == "bind":
        _call("mount", os.fsencode(mount["Source"]), at, None, _BIND, None, doing=doing)
        _call("mount", None, at, None, _BIND | _REMOUNT | flags, None, doing=doing)
        return
    options = [option for option in mount["Options"] if option != "ro"]
    if any(option.startswith("lowerdir+=") for option in options):
        _mount_piecewise(mount["Type"], options, at, doing)
        return
    text = os.fsencode(",".join(options))
    _call("mount", b"overlay", at, mount["Type"].encode(), flags, text, doing=doing)


def _mount_piecewise(kind: str, options: list[str], at: bytes, doing: str) -> None:
    """More layers than the page of options holds that mount(2) takes: one option a call."""

    def call(number: int, *arguments: Any) -> int:
        return _call("syscall", number, *arguments, doing=doing)

    fs = call(_FSOPEN, kind.encode(), _CLOEXEC)
    made = -1
    try:
        for option in options:
            key, equals, value = option.partition("=")
            what = _SET_STRING if equals else _SET_FLAG
            call(_FSCONFIG, fs, what, key.encode(), os.fsencode(value) if equals else None, 0)
        call(_FSCONFIG, fs, _CREATE, None, None, 0)
        made = call(_FSMOUNT, fs, _CLOEXEC, _ATTRIBUTES)
        call(_MOVE_MOUNT, made, b"", _HERE, at, _EMPTY_PATH)
    finally:
        for fd in (fs, made):
            if fd >= 0:
                os.close(fd)


def _call(name: str, *arguments: Any, doing: str, fine: int = 0) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
    libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        if number == fine:
            return result
        kind = Denied if number in (1, 13) else Invalid
        raise kind(f"cannot {doing}: {os.strerror(number)}", code="mount-failed", hint="mounting takes root")
    return result


DIFF = Command(
    "[OPTIONS] IMAGE [BASE_IMAGE]",
    "Show what an image changes of its lower layers, or of another image",
    DIFF_ROWS,
    _diff,
    least=1,
    most=2,
)
MOUNT = Command(
    "[OPTIONS] [IMAGE [DIRECTORY]]",
    "Mount an image read-only to look into it, or list what is mounted",
    MOUNT_ROWS,
    _mount,
    most=2,
)
UNMOUNT = Command("[OPTIONS] [IMAGE|DIRECTORY...]", "Unmount images", UNMOUNT_ROWS, _unmount)
