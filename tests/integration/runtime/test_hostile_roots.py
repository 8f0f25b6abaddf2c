"""Root file systems made to trick whoever sets a container up in them (security corpus: V09, V18-V20, V30, V57-V71)."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from proa.errors import ProaError


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of the host that must stay as it is."""
    directory = tmp_path / "canary"
    directory.mkdir()
    (directory / "file").write_text("untouched")
    return directory


def listing(directory: Path) -> list[tuple[str, int, int, bytes]]:
    return [
        (str(path), path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    ]


def replace(path: Path, target: str) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        path.rmdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/tmp", "tmp", "/nowhere", "/"])
def test_proc_and_sys_must_be_directories(containers: Any, name: str, target: str) -> None:
    root = containers.copy()
    replace(root / name, target)
    with pytest.raises(ProaError) as caught:
        containers.run("true", rootfs=containers.overlay(root))
    assert caught.value.subject == f"/{name}"


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_missing_mount_points_are_made(containers: Any, name: str) -> None:
    root = containers.copy()
    (root / name).rmdir()
    assert containers.run("true", rootfs=containers.overlay(root)).status == 0


def test_proc_with_content_is_covered(containers: Any) -> None:
    root = containers.copy()
    (root / "proc/self").mkdir()
    (root / "proc/self/status").write_text("fake")
    assert containers.run("cat", "/proc/self/status", rootfs=containers.overlay(root)).stdout.startswith("Name:\tcat")


@pytest.mark.parametrize("style", ["overlay", "bind"])
@pytest.mark.parametrize("with_dev_mount", [True, False])
def test_dev_that_leads_outside_stays_inside(containers: Any, canary: Path, style: str, with_dev_mount: bool) -> None:
    root = containers.copy()
    replace(root / "dev", str(canary))
    before = listing(canary)

    def change(config: dict[str, Any]) -> None:
        if not with_dev_mount:
            config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]

    rootfs = containers.overlay(root) if style == "overlay" else [{"type": "bind", "source": str(root)}]
    try:
        containers.run("true", rootfs=rootfs, change=change)
    except ProaError:
        pass
    assert listing(canary) == before


@pytest.mark.parametrize("link", ["dev/null", "dev/console", "dev/ptmx", "dev/pts", "dev/shm", "dev/fd", "dev/mqueue"])
def test_links_in_dev_are_covered_or_refused(containers: Any, canary: Path, link: str) -> None:
    """CVE-2025-31133, CVE-2025-52565: what masks and consoles are made from."""
    root = containers.copy()
    replace(root / link, str(canary / "file") if link.endswith(("null", "console", "ptmx")) else str(canary))
    before = listing(canary)
    core_pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for terminal in (False, True):
        for with_dev_mount in (True, False):

            def change(config: dict[str, Any], keep: bool = with_dev_mount) -> None:
                if not keep:
                    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/dev"]

            try:
                containers.run("cat", "/proc/keys", rootfs=containers.overlay(root), terminal=terminal, change=change)
            except ProaError as error:
                assert error.kind in ("denied", "invalid"), error.to_record()
    assert listing(canary) == before
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core_pattern


def test_masks_do_not_come_from_the_container(containers: Any) -> None:
    root = containers.copy()
    (root / "dev").rmdir()
    (root / "dev").mkdir()
    (root / "dev/null").symlink_to("/etc/passwd")

    def change(config: dict[str, Any]) -> None:
        config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]

    with pytest.raises(ProaError, match="/dev/null of the image is not the device"):
        containers.run("cat", "/proc/keys", rootfs=containers.overlay(root), change=change)


@pytest.mark.parametrize("destination", ["/link/x", "/link", "/up/etc/made", "/a/../../../x", "/abs/sub/dir"])
def test_mount_destinations_cannot_leave(containers: Any, canary: Path, tmp_path: Path, destination: str) -> None:
    root = containers.copy()
    (root / "link").symlink_to(str(canary))
    (root / "up").symlink_to("../../../../../../..")
    (root / "abs").symlink_to(str(tmp_path))
    source = tmp_path / "source"
    source.mkdir()
    before = listing(canary)

    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}
        )

    try:
        result = containers.run("cat", "/proc/self/mountinfo", rootfs=containers.overlay(root), change=change)
        assert result.status == 0
    except ProaError as error:
        assert error.kind in ("denied", "invalid")
    assert listing(canary) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "source"]


@pytest.mark.parametrize("target", ["/proc/self", "/proc/sys", "/proc/self/attr", "/proc"])
def test_nothing_is_mounted_into_proc_by_way_of_a_link(containers: Any, tmp_path: Path, target: str) -> None:
    root = containers.copy()
    (root / "sneaky").symlink_to(target)

    def change(config: dict[str, Any]) -> None:
        mount = {"destination": "/sneaky", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}
        config["mounts"].append(mount)

    with pytest.raises(ProaError, match="leads into /proc"):
        containers.run("true", rootfs=containers.overlay(root), change=change)


def test_working_directory_cannot_leave(containers: Any, canary: Path) -> None:
    """CVE-2025-9566: WORKDIR through links."""
    root = containers.copy()
    (root / "a").symlink_to(str(canary))
    (root / "b").mkdir()
    (root / "b/up").symlink_to("../../../../../../../../")
    before = listing(canary)
    for cwd in ("/a/new/dir", "/b/up/made/here", "/b/up" + str(canary) + "/new"):
        try:
            containers.run("pwd", cwd=cwd, rootfs=containers.overlay(root))
        except ProaError as error:
            assert error.kind in ("denied", "invalid")
    assert listing(canary) == before


def interpreter_paths() -> list[str]:
    """Where a Python process might look for its modules."""
    stdlib = sysconfig.get_path("stdlib")
    places = {stdlib, sysconfig.get_path("purelib"), os.path.dirname(os.path.dirname(os.__file__))}
    places |= {f"{prefix}/lib/python3.{minor}" for prefix in ("/usr", "/usr/local") for minor in range(10, 15)}
    places |= {str(Path(__file__).parents[3] / "src")}
    return [place for place in places if place and place.startswith("/")]


def test_modules_of_the_image_are_never_imported(containers: Any) -> None:
    """P01-P04: every place of the standard library holds modules that leave a mark, or FIFOs that would block."""
    root = containers.copy()
    names = (
        "encodings/idna",
        "_strptime",
        "traceback",
        "linecache",
        "shlex",
        "subprocess",
        "pwd",
        "stringprep",
        "json",
    )
    for index, place in enumerate(interpreter_paths()):
        for name in names:
            file = root / place.lstrip("/") / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            if index % 2:
                os.mkfifo(file)
            else:
                file.write_text("open('/marker', 'w').write('imported')\n")
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None) or ""
        if path.startswith("/") and "proa" in path:
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                os.mkfifo(file)
    (root / "etc/nsswitch.conf").write_text("passwd: evil\ngroup: evil\n")
    began = time.monotonic()
    rootfs = containers.overlay(root)
    assert containers.run("ls", "/", rootfs=rootfs, user="user").stdout.count("marker") == 0
    for user, command in (("nobody", "true"), ("user", "nosuch"), ("user", "/etc/passwd")):
        with pytest.raises(ProaError):
            containers.run(command, rootfs=containers.overlay(root), user=user)
    with pytest.raises(ProaError):
        containers.run("true", rootfs=containers.overlay(root), cwd="/proc/self/fd/77")
    assert time.monotonic() - began < 10
    upper = Path(next(option for option in rootfs[0]["options"] if option.startswith("upperdir="))[9:])
    assert not (upper / "marker").exists()


def test_the_interpreter_cannot_be_reached_as_proc_self_exe(containers: Any) -> None:
    """CVE-2019-5736: an image whose entry point is `#!/proc/self/exe`."""
    root = containers.copy()
    (root / "run").write_text("#!/proc/self/exe\n")
    (root / "run").chmod(0o755)
    interpreter = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(interpreter.read_bytes()).digest()
    # The test server is no sealed copy, as the nursery is, so only what is written and seen is checked here.
    try:
        containers.run("/run", rootfs=containers.overlay(root))
    except ProaError as error:
        assert error.code in ("command-not-found", "command-not-executable")
    link = containers.run("readlink", "/proc/1/exe", rootfs=containers.overlay(root)).stdout
    assert link == "/bin/busybox\n"
    assert hashlib.sha256(interpreter.read_bytes()).digest() == before
