"""File systems of volumes' own, mounted on the host while somebody uses them.

They are the one thing proa mounts on the host: several containers and the engine must see the same tmpfs or disk, and
nobody else lives as long as they do (docs/decisions). What a killed engine left mounted, the next one finds.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proa.engine.volumes.options import Backing, parse_options
from proa.engine.volumes.records import Volume
from proa.errors import Exhausted, Invalid, Unavailable, Unsupported
from proa.linux import loop
from proa.linux import mount as m
from proa.linux.files import is_mount_root

__all__ = ["FileSystems", "make_disk"]

DISK = "disk.ext4"
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"
_MKFS_TIMEOUT_S = 120


class FileSystems:
    """Who uses which volume's file system; the first user mounts it, the last one unmounts it. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._users: dict[str, set[str]] = {}

    def use(self, volume: Volume, user: str) -> None:
        """Make the data reachable at the volume's mountpoint until `leave`.

        user: whoever it is for; using twice is like once. Raises Invalid, Unavailable, Exhausted, Unsupported.
        """
        backing = parse_options(volume.options)
        if not backing.mounted:
            return
        with self._lock:
            users = self._users.setdefault(volume.name, set())
            if not users and not _is_mounted(volume.mountpoint):
                self._mount(volume, backing)
            users.add(user)

    def leave(self, name: str, user: str) -> None:
        """The user is done with it; for the last one it is unmounted, unless something on the host still uses it."""
        with self._lock:
            users = self._users.get(name)
            if users is None:
                return
            users.discard(user)
            if not users:
                del self._users[name]
                _unmount(self._mountpoint(name))

    @contextmanager
    def at_hand(self, volume: Volume) -> Iterator[Path]:
        """The data, for the engine's own work with it."""
        user = f"engine:{threading.get_ident()}"
        self.use(volume, user)
        try:
            yield Path(volume.mountpoint)
        finally:
            self.leave(volume.name, user)

    def sweep(self, name: str) -> None:
        """After a crash: unmount what nobody uses."""
        with self._lock:
            mountpoint = self._mountpoint(name)
            if not self._users.get(name) and _is_mounted(mountpoint):
                _unmount(mountpoint)

    def _mountpoint(self, name: str) -> str:
        """Found without the record, which may be damaged by now."""
        return str(self._directory / name / "data")

    def _mount(self, volume: Volume, backing: Backing) -> None:
        if backing.size_bytes:
            _mount_disk(self._directory / volume.name / DISK, volume)
            return
        device, data = backing.device, backing.data
        if backing.fstype in ("nfs", "nfs4"):
            data = _with_address(data, volume.name)
        fstype = None if backing.fstype in ("none", "bind") else backing.fstype
        flags = backing.flags | (m.MS_BIND if backing.fstype == "bind" else 0)
        try:
            m.mount(device, volume.mountpoint, fstype, flags, data)
            if flags & m.MS_BIND and flags & ~(m.MS_BIND | m.MS_REC):
                m.mount(None, volume.mountpoint, None, flags | m.MS_REMOUNT)
        except OSError as error:
            # Docker's words, as clients show them.
            raise Unavailable(
                f"failed to mount local volume: mount {device}:{volume.mountpoint}, flags: {flags:#x}"
                f"{f', data: {data}' if data else ''}: {os.strerror(error.errno or 0).lower()}",
                code="volume-mount",
                subject=volume.name,
            ) from None


def make_disk(path: Path, size_bytes: int) -> None:
    """Make an ext4 file system in a sparse file. Raises Unsupported without mkfs.ext4, Exhausted when it fails."""
    program = shutil.which("mkfs.ext4", path=_SBIN)
    if program is None:
        raise Unsupported(
            "a volume with a size needs mkfs.ext4, which is not installed",
            code="mkfs-missing",
            hint="install e2fsprogs, or make the volume without a size",
        )
    with open(path, "xb") as file:
        os.ftruncate(file.fileno(), size_bytes)
    argv = [program, "-q", "-F", "-m", "0", "-E", "nodiscard", str(path)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_MKFS_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Unavailable("mkfs.ext4 does not end", code="mkfs-failed") from None
    if done.returncode:
        raise Exhausted(f"mkfs.ext4 failed: {done.stderr.strip()[-300:]}", code="mkfs-failed", subject=str(path))


def _mount_disk(disk: Path, volume: Volume) -> None:
    try:
        with open(disk, "r+b") as file:
            device, path = loop.attach(file.fileno(), volume.name)
        try:
            m.mount(path, volume.mountpoint, "ext4", m.MS_NOATIME)
        finally:
            os.close(device)
    except OSError as error:
        raise Unavailable(
            f"the file system of volume {volume.name} cannot be mounted: {error.strerror}",
            code="volume-mount",
            subject=volume.name,
            hint="volumes with a size need loop devices (/dev/loop-control)",
        ) from None
    try:
        os.rmdir(f"{volume.mountpoint}/lost+found")  # fsck makes another when it needs one
    except OSError:
        pass


def _with_address(data: str, name: str) -> str:
    """The kernel's NFS client takes no host names."""
    words = data.split(",")
    for i, word in enumerate(words):
        key, _, host = word.partition("=")
        if key == "addr" and host:
            try:
                words[i] = f"addr={socket.getaddrinfo(host, None)[0][4][0]}"
            except OSError as error:
                text = f"error resolving passed in network volume address: {error}"
                raise Invalid(text, code="volume-option", subject=name) from None
    return ",".join(words)


def _is_mounted(path: str) -> bool:
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_mount_root(fd)
    finally:
        os.close(fd)


def _unmount(path: str) -> None:
    try:
        m.umount2(path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EINVAL):
            raise
