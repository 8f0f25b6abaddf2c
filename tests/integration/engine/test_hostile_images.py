"""Images made to break out: whatever they hold, the host stays as it was, and the command ends soon."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine
from oci_images import Image, special, tar

pytestmark = pytest.mark.root

BUSYBOX = (("bin", None), ("bin/busybox", Path("/bin/busybox").read_bytes()), ("bin/sh", "busybox"))
KERNEL = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname")


def host_state(canary: Path) -> dict[str, Any]:
    """What a break-out would change."""
    etc = {p: Path(p).read_bytes() for p in ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/hostname", "/etc/mtab")}
    return {
        "canary": sorted((p.name, p.read_bytes(), p.stat().st_mode) for p in canary.iterdir()),
        "etc": {k: hashlib.sha256(v).hexdigest() for k, v in etc.items() if k != "/etc/mtab"},
        "etc names": sorted(os.listdir("/etc")),
        "root": sorted(os.listdir("/")),
        "dev": sorted(n for n in os.listdir("/dev") if not n.startswith("loop")),
        "kernel": {p: Path(p).read_text() for p in KERNEL},
        "null": os.stat("/dev/null").st_rdev,
    }


def fifo(name: str) -> tarfile.TarInfo:
    return special(name, tarfile.FIFOTYPE)


# name -> (layer members besides busybox, image config, options of run)
CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]] = {
    "proc is a link to the root": ((("proc", "/"),), {}, ()),
    "proc is a link to the host": ((("proc", "@"),), {}, ()),
    "sys is a link": ((("sys", "/etc"),), {}, ()),
    "dev is a link to the host": ((("dev", "@"),), {}, ()),
    "dev is a relative link": ((("dev", "../../../../../../@"),), {}, ()),
    "etc is a link to the root": ((("etc", "/"),), {}, ()),
    "etc is a link to the host": ((("etc", "@"),), {}, ()),
    "hosts is a link to the host": ((("etc", None), ("etc/hosts", "@/file"), ("etc/resolv.conf", "@/new")), {}, ()),
    "hostname is a link to proc": ((("etc", None), ("etc/hostname", "/proc/sys/kernel/core_pattern")), {}, ()),
    "hosts is a FIFO": ((("etc", None), fifo("etc/hosts"), fifo("etc/hostname")), {}, ()),
    "passwd is a FIFO": ((("etc", None), fifo("etc/passwd"), fifo("etc/group")), {"User": "somebody"}, ()),
    "passwd is a link to a device": ((("etc", None), ("etc/passwd", "/dev/zero")), {"User": "somebody"}, ()),
    "passwd is a link to itself": ((("etc", None), ("etc/passwd", "passwd")), {"User": "1000"}, ()),
    "passwd is a directory": ((("etc", None), ("etc/passwd", None)), {"User": "somebody"}, ()),
    "passwd is large": ((("etc", None), ("etc/passwd", b"x" * (20 << 20))), {"User": "somebody"}, ()),
    "group is a FIFO": ((("etc", None), fifo("etc/group")), {"User": "1000:staff"}, ()),
    "work directory is a descriptor": ((), {"WorkingDir": "/proc/self/fd/7"}, ()),
    "work directory is another's descriptor": ((), {"WorkingDir": "/proc/1/fd/8/../../.."}, ()),
    "work directory goes through a link": ((("a", "@"), ("b", "../../../../@")), {"WorkingDir": "/a/made"}, ()),
    "mount target goes through a link": ((("data", "@"),), {}, ("--tmpfs", "/data/inside")),
    "mount target is a link": ((("data", "@"),), {}, ("-v", "{canary}/file:/data/file2")),
    "volume goes through a link": ((("data", "@"),), {"Volumes": {"/data/volume": {}}}, ()),
    "volume over proc": ((), {"Volumes": {"/proc": {}}}, ()),
    "null is a link": ((("dev", None), ("dev/null", "/proc/sys/kernel/core_pattern")), {}, ()),
    "console is a link": ((("dev", None), ("dev/console", "@/file")), {}, ()),
    "shm is a link": ((("dev", None), ("dev/shm", "@")), {}, ()),
    "pts is a link": ((("dev", None), ("dev/pts", "@"), ("dev/ptmx", "@/file")), {}, ()),
    "the interpreter's library": (
        (("usr", None), ("usr/lib", None), ("usr/lib/python3.11", None), ("usr/lib/python3.11/os.py", b"import evil")),
        {"Env": ["PATH=/bin", "PYTHONPATH=/usr/lib/python3.11", "LD_PRELOAD=/evil.so", "PYTHONHOME=/usr"]},
        (),
    ),
    "a program that is its own interpreter": (
        (("run.sh", b"#!/proc/self/exe\nimport os; os.system('touch /pwned')\n"),),
        {"Entrypoint": ["/run.sh"]},
        (),
    ),
    "a program in proc": ((), {"Entrypoint": ["/proc/self/exe", "-c", "print(1)"]}, ()),
    "labels and history are data": (
        (),
        {"Labels": {"a\x1b[2J": "\x1b]0;x\x07", "io.podman.annotations.x": "../../x"}, "StopSignal": "KILL"},
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_host_stays_as_it_was(box: PrivateEngine, tmp_path: Path, name: str) -> None:
    members, config, options = CASES[name]
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_bytes(b"untouched")
    aimed = [
        (m[0], m[1].replace("@", str(canary))) if isinstance(m, tuple) and isinstance(m[1], str) else m for m in members
    ]
    image = Image(tar(*BUSYBOX, *aimed), config={**config})
    box.proa("load", stdin=image.archive("docker.io/tests/hostile:1"))
    before = host_state(canary)
    given = [o.format(canary=canary) for o in options]
    script = (
        "echo x > /etc/hosts; echo x > /etc/hostname; echo x > /dev/null; echo x > /dev/shm/x; touch made; echo ran"
    )
    command = [] if "Entrypoint" in config else ["/bin/busybox", "sh", "-c", script]
    for more in ((), ("--network", "bridge")):
        done = box.proa(
            "run", "--rm", "--network", "none", *more, *given, "tests/hostile:1", *command, check=False, timeout=20
        )
        if done.returncode == 0:
            assert command, done.stdout
            assert done.stdout == b"ran\n"
        else:
            assert done.returncode in (1, 125, 126, 127), done
            assert done.stderr.strip(), "a refusal says why"
            assert b"Traceback" not in done.stderr
    assert host_state(canary) == before
    assert box.containers() == []


@pytest.mark.parametrize(
    ("passwd", "user", "uid"),
    [
        (b"1337:x:0:0::/:/bin/sh\n", "1337", "1337"),
        (b"app:x:0\n", "app", None),
        (b"app:x:-1:5::/:\n", "app", None),
        (b"app:x:4294967296:5::/:\n", "app", None),
        (b"app:x:\xd9\xa1:5::/:\n", "app", None),
        (b"app:x:1_0:5::/:\n", "app", None),
        (b":x:0:0::/:/bin/sh\napp:x:12:13::/home:\n", "app", "12"),
    ],
)
def test_users_are_who_they_say(box: PrivateEngine, passwd: bytes, user: str, uid: str | None) -> None:
    image = Image(tar(*BUSYBOX, ("etc", None), ("etc/passwd", passwd)), config={"User": user})
    box.proa("load", stdin=image.archive("docker.io/tests/users:1"))
    done = box.proa("run", "--rm", "--network", "none", "tests/users:1", "busybox", "id", "-u", check=False)
    if uid is None:
        assert done.returncode in (125, 126)
        assert done.stdout == b""
    else:
        assert done.stdout.decode().strip() == uid


def test_control_characters_do_not_reach_the_terminal(box: PrivateEngine) -> None:
    image = Image(tar(*BUSYBOX), config={"Labels": {"l": "\x1b[31mred"}, "Cmd": ["\x1b]0;title\x07"]})
    box.proa("load", stdin=image.archive("docker.io/tests/colours:1"))
    done = box.proa("run", "--rm", "--network", "none", "tests/colours:1", check=False)
    assert done.returncode == 127
    terminal = box.terminal("run", "--rm", "--network", "none", "tests/colours:1")
    assert terminal.end() == 127
    assert b"\x1b]0;" not in terminal.seen
