"""Overlay's mount options: what this kernel takes, and how many lower directories fit.

Why each is set (Documentation/filesystems/overlayfs.rst): `redirect_dir=nofollow`, because kernels built with
always-follow would obey a redirect attribute even with `off`; `metacopy=off`, so that a file in a layer is never a
pointer to another layer's data; `index=off`, so that layers can be shared by mounts that come and go.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from proa.errors import Unsupported
from proa.linux import mount
from proa.linux.process import in_user_namespace
from proa.storage.snapshots import Mount

# mount(2) copies one page of options, the last byte of which it sets to NUL.
PAGE_LIMIT = 4095
# fsconfig(2) takes strings of at most 255 bytes.
STRING_LIMIT = 255
# OVL_MAX_STACK in fs/overlayfs/params.h.
MAX_LOWER = 500

_WANTED = ("redirect_dir=nofollow", "index=off", "metacopy=off")


@functools.cache
def supported_options() -> tuple[str, ...]:
    """Those of the wanted options that this kernel knows; nothing is mounted to find out."""
    options = list(_WANTED)
    try:
        fs_fd = mount.fsopen("overlay")
    except OSError:
        # No fd-based mounts (before 5.2), no privilege, or no overlay yet: the module's parameters name its features.
        known = "/sys/module/overlay/parameters"
        if os.path.isdir(known):
            options = [o for o in options if os.path.exists(f"{known}/{o.partition('=')[0]}")]
    else:
        try:
            options = [o for o in options if _takes(fs_fd, *o.split("="))]
        finally:
            os.close(fs_fd)
    # trusted.overlay.* belongs to the first user namespace; inside another, overlay keeps its marks in user.overlay.*.
    if in_user_namespace():
        options.append("userxattr")
    return tuple(options)


def _takes(fs_fd: int, key: str, value: str) -> bool:
    try:
        mount.fsconfig_string(fs_fd, key, value)
    except OSError:
        return False
    return True


def overlay_mount(lowers: Sequence[str], upper: str = "", work: str = "", *, volatile: bool = False) -> Mount:
    """An overlay of host directories, uppermost lower first; read-only without `upper`. Raises Unsupported."""
    if len(lowers) > MAX_LOWER:
        raise Unsupported(
            f"the image has {len(lowers)} layers, overlay mounts at most {MAX_LOWER}", code="too-many-layers"
        )
    rest = [f"upperdir={upper}", f"workdir={work}"] if upper else ["ro"]
    rest += supported_options()
    if volatile:
        rest.append("volatile")
    joined = [f"lowerdir={':'.join(lowers)}", *rest]
    if len(os.fsencode(",".join(joined))) <= PAGE_LIMIT:
        return Mount("overlay", "overlay", tuple(joined))
    for path in (*lowers, upper, work):
        if len(os.fsencode(path)) > STRING_LIMIT:
            raise Unsupported(
                f"path {path} is too long to mount {len(lowers)} layers from",
                code="root-unusable",
                hint=f"choose a data root whose path is at most {STRING_LIMIT - 40} bytes long",
            )
    return Mount("overlay", "overlay", (*(f"lowerdir+={p}" for p in lowers), *rest))
