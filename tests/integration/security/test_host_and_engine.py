"""Advisories about the kernel's settings, control groups, the engine's own data, and what images say about themselves.

Each test is named after its row of docs/reference/advisories.md.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from advisories import load, refused
from engines import PrivateEngine, until
from programs import elf

ROOT = Path(__file__).parents[3]


def _abstract() -> list[str]:
    return [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if " @" in line]


def _is_monitor(process: Path) -> bool:
    try:
        return b"proa monitor" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def _resident(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(next((line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")), 0))


def test_v05_labels_of_an_image_control_nothing(box: PrivateEngine, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    labels = {
        **{f"{prefix}restart.loguri": f"binary:///bin/touch?{mark}" for prefix in ("containerd.io/", "proa.", "io.")},
        "proa.seccomp": "unconfined",
        "proa.init": "true",
        "org.systemd.property.ExecStopPost": f"'/bin/touch {mark}'",
    }
    image = load(box, Labels=labels)
    said = box.out("run", "--rm", "--network", "none", image, "/bin/busybox", "sh", "-c", "cat /proc/self/status")
    assert "Seccomp:\t2" in said
    assert "\nPid:\t1\n" not in said or "NSpid" in said
    assert not mark.exists()


def test_v06_a_name_cannot_stand_for_another_containers_id(box: PrivateEngine, running: str) -> None:
    identity = box.inspect(running)["Id"]
    for name in (identity, identity[:12], identity[:20]):
        assert " ID" in refused(box, "create", "--name", name, "busybox", "true", status=1)
    assert box.inspect(identity[:12])["Name"].strip("/") == running


def test_v22_no_abstract_socket_is_ours(box: PrivateEngine) -> None:
    known = {name for name in _abstract() if "proa" in name}
    assert known == set()
    said = box.out("run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix")
    assert not [line for line in said.splitlines() if "@" in line and "proa" in line.partition("@")[2]]


def test_v36_v37_nothing_of_cgroups_can_be_taken_over(box: PrivateEngine) -> None:
    script = """
    unshare -UrmC true 2>/dev/null && echo unshared
    mkdir /tmp/c; mount -t cgroup -o rdma x /tmp/c 2>/dev/null && echo mounted
    for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release); do
      (echo x > $f) 2>/dev/null && echo $f; done
    :
    """
    assert box.sh(script) == ""
    assert refused(box, "run", "--rm", "--hostname", "x" * 70_000, "busybox", "true")


@pytest.mark.parametrize(
    "value",
    [
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/H",
        "kernel.shm_rmid_forced=1\nkernel.core_pattern=x",
        "kernel.core_pattern=|/H",
        "kernel/core_pattern=|/H",
        "net/../kernel/core_pattern=x",
        "net.ipv4.../../../kernel/core_pattern=x",
        "kernel.hostname=x",
    ],
)
def test_v38_a_parameter_is_only_what_it_says(box: PrivateEngine, value: str) -> None:
    done = box.proa("run", "--rm", "--network", "none", "--sysctl", value, "busybox", "true", check=False)
    assert done.returncode == 125
    assert box.containers() == []


def test_v39_no_parameter_of_the_hosts_namespaces(box: PrivateEngine) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    for options in (
        ("--network", "host", "--sysctl", "net.ipv4.ip_forward=0"),
        ("--ipc", "host", "--sysctl", "kernel.msgmax=1"),
    ):
        refused(box, "run", "--rm", *options, "busybox", "true")
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


def test_v43_an_exec_nobody_reads_costs_nothing(box: PrivateEngine, running: str) -> None:
    reader = box.popen("exec", running, "sh", "-c", "yes | head -c 200000000")
    until(lambda: "yes" in box.out("top", running), "the flood")
    pids = [box.pid, *(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_monitor(p))]
    sizes = [_resident(pid) for pid in pids]
    for _ in range(15):
        box.out("exec", running, "true")
    assert sum(_resident(pid) for pid in pids) - sum(sizes) < 64 << 10
    reader.kill()
    reader.communicate()


def test_v44_a_line_break_adds_no_line(box: PrivateEngine) -> None:
    assert box.sh("grep -c root2 /etc/passwd; :", "-e", "HOME=/x\nroot2::0:0::/:/bin/sh") == "0"
    for options in (
        ("--hostname", "a\nb"),
        ("--name", "a\nb"),
        ("--add-host", "a\nb:1.2.3.4"),
        ("--dns", "1.2.3.4\nx"),
    ):
        refused(box, "run", "--rm", *options, "busybox", "true")


def test_v47_annotations_of_an_image_mean_nothing(box: PrivateEngine) -> None:
    image = load(box, Labels={"run.oci.handler": "krun", "io.kubernetes.cri-o.UnifiedCgroup.x": "memory.max=max"})
    assert box.out("run", "--rm", "--network", "none", image, "/bin/busybox", "echo", "ran") == "ran"
    config = box.sh("cat /proc/self/status | grep Seccomp:", "--annotation", "proa.seccomp=unconfined")
    assert config == "Seccomp:\t2"


def test_v74_no_kernel_crypto_sockets_by_any_spelling(box: PrivateEngine, tmp_path: Path) -> None:
    # socket(edi: family, SEQPACKET, 0); exit(errno): 38 is AF_ALG; once more with a bit above the int
    tail = b"\xbe\x05\x00\x00\x00\x31\xd2\xb8\x29\x00\x00\x00\x0f\x05\xf7\xd8\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"
    for name, head in (("plain", b"\xbf\x26\x00\x00\x00"), ("wide", b"\x48\xbf\x26\x00\x00\x00\x01\x00\x00\x00")):
        (tmp_path / name).write_bytes(elf(head + tail))
        (tmp_path / name).chmod(0o755)
        command = ("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/x:ro", "busybox", f"/x/{name}")
        assert box.proa(*command, check=False).returncode == 1


def test_p26_a_start_without_descriptors_fails_and_the_next_works(box: PrivateEngine) -> None:
    subprocess.run(["prlimit", f"--pid={box.pid}", "--nofile=40:"], check=True)
    try:
        done = box.proa("run", "--rm", "--network", "none", "busybox", "true", check=False, timeout=60)
        assert b"Traceback" not in done.stderr
    finally:
        subprocess.run(["prlimit", f"--pid={box.pid}", "--nofile=4096:"], check=True)
    until(
        lambda: box.proa("run", "--rm", "--network", "none", "busybox", "true", check=False).returncode == 0, "a start"
    )


def test_p29_odd_bytes_in_names_come_through(box: PrivateEngine) -> None:
    box.proa(
        "run", "--name", "odd", "--network", "none", "busybox", "sh", "-c", "touch /tmp/$(printf 'a\\377\\033[2Jb')"
    )
    terminal = box.terminal("diff", "odd")
    shown = terminal.expect(b"/tmp/a") + terminal.expect(b"b\r\n")
    assert b"\x1b" not in shown
    assert terminal.end() == 0
    json.loads(box.proa("inspect", "odd").stdout)
    box.proa("rm", "odd")


def test_every_row_has_its_test() -> None:
    rows = re.findall(
        r"^\| ([VP]\d\d) \|.*\| `([^`]+)` \|$", (ROOT / "docs/reference/advisories.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 60
    for row, place in rows:
        file, _, name = place.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert f"def {name}(" in text, (row, place)
