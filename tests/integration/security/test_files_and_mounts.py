"""Advisories about files and mounts: whatever an image or a volume holds, the host's stay as they are.

Each test is named after its row of docs/reference/advisories.md.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

from advisories import KERNEL, load, refused
from engines import PrivateEngine
from programs import elf


def test_v01_no_file_of_the_host_by_handle(box: PrivateEngine, tmp_path: Path) -> None:
    # open_by_handle_at(0, handle on the stack, 0); exit(errno)
    code = b"\xb8\x30\x01\x00\x00\x31\xff\x48\x89\xe6\x31\xd2\x0f\x05\xf7\xd8\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"
    (tmp_path / "shocker").write_bytes(elf(code))
    (tmp_path / "shocker").chmod(0o755)
    command = ("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/x:ro", "busybox", "/x/shocker")
    assert box.proa(*command, check=False).returncode == 1  # EPERM


def test_v09_nothing_is_kept_from_one_start_to_the_next(box: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    box.proa("create", "--name", "again", "--network", "none", "busybox", "sh", "-c", "rm -r /dev/* /etc/hosts; :")
    for _ in range(3):
        box.proa("start", "-a", "again", check=False)
    assert os.listdir(tmp_path / "canary") == []
    box.proa("rm", "again")


def test_v10_what_is_masked_and_read_only(box: PrivateEngine) -> None:
    script = """
    for p in asound interrupts kcore keys latency_stats sched_debug timer_list timer_stats; do
      [ -f /proc/$p ] && cat /proc/$p 2>/dev/null | wc -c; [ -d /proc/$p ] && ls /proc/$p | wc -l; done
    ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | grep -c .
    for p in sys/kernel/core_pattern sysrq-trigger irq/default_smp_affinity; do
      (: > /proc/$p) 2>/dev/null && echo $p; done; :
    """
    assert set(box.sh(script).split()) <= {"0"}
    for target in ("/proc", "/proc/self/attr", "/sys/firmware", "/proc/../proc/sys"):
        refused(box, "run", "--rm", "-v", f"/tmp:{target}", "busybox", "true")
    image = load(box, Volumes={"/proc": {}})
    refused(box, "run", "--rm", image, "/bin/busybox", "true")


def test_v20_proc_must_be_procs_own(box: PrivateEngine) -> None:
    for member in (("proc", "/etc"), ("sys", "/etc"), ("proc", "proc")):
        refused(box, "run", "--rm", "--network", "none", load(box, member), "/bin/busybox", "true", status=125)
    image = load(box, ("proc", None), ("proc/self", None), ("proc/self/attr", None), ("proc/sys", None))
    said = box.out("run", "--rm", "--network", "none", image, "/bin/busybox", "ls", "/proc/1")
    assert "status" in said


def test_v26_a_volume_with_content_is_not_written_over(box: PrivateEngine) -> None:
    image = load(box, ("data", None), ("data/file", b"of the image"))
    box.sh("echo mine > /data/file", "-v", "filled:/data")
    shown = box.out(
        "run", "--rm", "--network", "none", "-v", "filled:/data", image, "/bin/busybox", "cat", "/data/file"
    )
    assert shown == "mine"


def test_v30_v60_a_mount_point_that_is_swapped_all_the_time(box: PrivateEngine, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    shared = tmp_path / "shared"
    (shared / "real").mkdir(parents=True)
    (shared / "link").symlink_to(f"../../../../../../../../../..{canary}")
    ended = threading.Event()
    swap = ctypes.CDLL(None).renameat2

    def flip() -> None:
        while not ended.is_set():
            swap(-100, f"{shared}/real".encode(), -100, f"{shared}/link".encode(), 2)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for number in range(8):
            point = f"/vol/real/made{number}/x"
            mounts = ("-v", f"{shared}:/vol", "--tmpfs", point)
            box.proa("run", "--rm", "--network", "none", *mounts, "busybox", "true", check=False)
    finally:
        ended.set()
        thread.join()
    assert os.listdir(canary) == []
    assert str(canary) not in Path("/proc/self/mountinfo").read_text()


def test_v40_a_volume_of_the_image_cannot_point_outside(box: PrivateEngine) -> None:
    for member, volume in ((("v", "/etc"), "/v"), (("v", "../../../../etc"), "/v/x"), (("w", None), "/../../../etc")):
        image = load(box, member, Volumes={volume: {}})
        done = box.proa(
            "run", "--rm", "--network", "none", image, "/bin/busybox", "find", "/", "-name", "shadow", check=False
        )
        assert b"shadow" not in done.stdout


def test_v55_accounts_that_never_end(box: PrivateEngine) -> None:
    for content in ("/dev/zero", "/dev/full", "/proc/kmsg"):
        image = load(box, ("etc", None), ("etc/passwd", content))
        refused(box, "run", "--rm", "--network", "none", "-u", "somebody", image, "/bin/busybox", "true")
    image = load(box, ("etc", None), ("etc/passwd", b"x" * (20 << 20)))
    assert "passwd" in refused(box, "run", "--rm", "--network", "none", "-u", "somebody", image, "/bin/busybox", "true")


def test_v56_v57_v68_files_the_engine_provides_stay_inside(box: PrivateEngine, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    for path in (
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/mtab",
        ".dockerenv",
        "run/.containerenv",
        "run/secrets",
    ):
        parents = tuple((part, None) for part in ("etc", "run") if path.startswith(f"{part}/"))
        image = load(box, *parents, (path, f"{canary}/made"))
        box.proa("run", "--rm", "--network", "none", image, "/bin/busybox", "true", check=False)
        assert os.listdir(canary) == []
    image = load(box, ("etc", str(canary)))
    box.proa("run", "--rm", "--network", "none", image, "/bin/busybox", "true", check=False)
    assert os.listdir(canary) == []


def test_v63_v64_v65_masks_and_consoles_are_the_hosts_own(box: PrivateEngine, tmp_path: Path) -> None:
    links = (("dev/null", KERNEL[0]), ("dev/console", f"{tmp_path}/x"), ("dev/pts", f"{tmp_path}"))
    for path, target in links:
        image = load(box, ("dev", None), (path, target))
        terminal = box.terminal("run", "--rm", "-it", "--network", "none", image, "/bin/busybox", "cat", "/proc/keys")
        terminal.end()
    assert os.listdir(tmp_path) == []
    for target in ("/proc/self/attr/exec", "/proc/self/oom_score_adj", "/proc/thread-self/attr"):
        refused(box, "run", "--rm", "-v", f"{tmp_path}:{target}", "busybox", "true")
        refused(box, "run", "--rm", "--tmpfs", target, "busybox", "true")


def test_v67_a_working_directory_is_made_inside(box: PrivateEngine, tmp_path: Path) -> None:
    image = load(box, ("a", str(tmp_path)), ("b", None), ("b/up", "../../../../../.."), WorkingDir="/a/made/here")
    box.proa("run", "--rm", "--network", "none", image, "/bin/busybox", "pwd", check=False)
    box.proa("run", "--rm", "--network", "none", "-w", f"/b/up{tmp_path}/x", image, "/bin/busybox", "pwd", check=False)
    assert os.listdir(tmp_path) == []


def test_v71_dev_that_leads_outside(box: PrivateEngine, tmp_path: Path) -> None:
    for target in (str(tmp_path), f"../../../../../../..{tmp_path}"):
        image = load(box, ("dev", target))
        box.proa("run", "--rm", "--network", "none", image, "/bin/busybox", "true", check=False)
        assert os.listdir(tmp_path) == []
