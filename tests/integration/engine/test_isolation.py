"""What a container sees and may do, seen from inside through `proa run`."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from pathlib import Path

import pytest
from engines import PrivateEngine, until
from layer_archives import read_tree
from programs import EXIT_WITH_EUID, elf

pytestmark = pytest.mark.root

DEFAULT = "00000000a80425fb"
NONE = "0" * 16


def status(text: str) -> dict[str, str]:
    """/proc/PID/status as a dictionary."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def tree_hash(path: Path) -> str:
    return hashlib.sha256(repr(sorted(read_tree(path).items())).encode()).hexdigest()


def layer_directories(box: PrivateEngine) -> list[Path]:
    """The committed layers' directories: those that hold busybox."""
    return [p for p in (box.root / "snapshots").glob("*/fs") if (p / "bin" / "busybox").exists()]


def test_two_containers_of_one_image_see_their_own_writes_only(box: PrivateEngine) -> None:
    before = {p: tree_hash(p) for p in layer_directories(box)}
    assert before
    for name in ("first", "second"):
        box.proa("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "1000")
        box.proa("exec", name, "sh", "-c", f"echo {name} > /own; echo {name} >> /etc/os-release; rm /etc/group")
    for name, other in (("first", "second"), ("second", "first")):
        seen = box.out("exec", name, "sh", "-c", "cat /own; tail -n 1 /etc/os-release; ls /etc/group 2>&1; true")
        assert seen.splitlines()[:2] == [name, name]
        assert "No such file" in seen
        assert other not in seen
    assert "first" not in box.sh("cat /etc/os-release; ls / /etc/group; true")
    box.proa("rm", "-f", "first", "second")
    assert {p: tree_hash(p) for p in before} == before


def test_it_sees_its_own_processes_and_name_only(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "alone", "--network", "none", "busybox", "sleep", "1000")
    rows = box.out("exec", "alone", "ps", "-o", "pid,args").splitlines()
    assert rows[0].split() == ["PID", "COMMAND"]
    assert [row.split(None, 1)[1] for row in rows[1:]] == ["sleep 1000", "ps -o pid,args"]
    assert rows[1].split()[0] == "1"
    assert box.out("exec", "alone", "hostname") == box.inspect("alone")["Id"][:12]
    assert box.out("exec", "alone", "hostname") != os.uname().nodename
    for name in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
        own = box.out("exec", "alone", "readlink", f"/proc/1/ns/{name}")
        assert own != os.readlink(f"/proc/self/ns/{name}")
        assert box.out("exec", "alone", "readlink", f"/proc/self/ns/{name}") == own


def test_what_root_inside_may_not_do(box: PrivateEngine) -> None:
    host = os.getpid()
    attempts = {
        "mount": "mount -t tmpfs none /tmp",
        "bind": "mount -o bind /etc /tmp",
        "umount": "umount /proc/sys",
        "remount": "mount -o remount,rw /sys",
        "disk": "mknod /tmp/disk b 254 0",
        "memory": "mknod /tmp/mem c 1 1",
        "unshare": "unshare -m true",
        "user namespace": "unshare -U true",
        "enter": "nsenter -t 1 -m true",
        "hostname": "hostname other",
        "clock": "date -s 2000-01-01; [ $(date +%Y) = 2000 ]",
        "sysctl": "echo 1 > /proc/sys/kernel/hostname",
        "forward": "echo 1 > /proc/sys/vm/drop_caches",
        "sysrq": "echo b > /proc/sysrq-trigger",
        "cgroup": "mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x",
        "limit": "echo 1 > /sys/fs/cgroup/pids/pids.max",
        "sys": "echo 0 > /sys/kernel/mm/transparent_hugepage/enabled",
        "host process": f"kill -0 {host}",
        "outside": "ls /proc/1/root/../../work",
        "kernel log": "dmesg",
        "module": "insmod /tmp/x",
        "swap": "swapoff -a",
        "reboot": "reboot -f",
        "kcore": "head -c 1 /proc/kcore | grep -q .",
        "raw clock": "adjtimex -f 1",
        "console": "cat /dev/console",
    }
    script = "".join(f"if {{ {c}; }} >/dev/null 2>&1; then echo '{name}'; fi\n" for name, c in attempts.items())
    assert box.sh(script + "true") == ""


def test_capabilities(box: PrivateEngine) -> None:
    def of(*options: str) -> dict[str, str]:
        return status(box.out("run", "--rm", "--network", "none", *options, "busybox", "cat", "/proc/self/status"))

    seen = of()
    assert (seen["CapEff"], seen["CapPrm"], seen["CapBnd"]) == (DEFAULT, DEFAULT, DEFAULT)
    assert (seen["CapInh"], seen["CapAmb"]) == (NONE, NONE)
    assert (seen["Seccomp"], seen["NoNewPrivs"], seen["SigIgn"], seen["SigBlk"]) == ("2", "0", NONE, NONE)
    user = of("--user", "1000")
    assert (user["CapEff"], user["CapPrm"], user["CapAmb"], user["CapInh"]) == (NONE, NONE, NONE, NONE)
    assert (user["CapBnd"], user["Uid"].split()) == (DEFAULT, ["1000"] * 4)
    none = of("--cap-drop", "ALL")
    assert (none["CapEff"], none["CapBnd"]) == (NONE, NONE)
    one = of("--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    assert int(one["CapBnd"], 16) == 1 << 12
    more = of("--cap-add", "sys_time", "--cap-drop", "CAP_MKNOD")
    assert int(more["CapEff"], 16) == (int(DEFAULT, 16) | 1 << 25) & ~(1 << 27)
    held = of("--security-opt", "no-new-privileges")
    assert (held["NoNewPrivs"], held["Seccomp"]) == ("1", "2")
    assert of("--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    privileged = of("--privileged")
    bounding = status(Path("/proc/self/status").read_text())["CapBnd"]
    assert (privileged["CapEff"], privileged["Seccomp"]) == (bounding, "0")
    refused = box.proa("run", "--rm", "--cap-add", "FLY", "busybox", "true", check=False)
    assert (refused.returncode, b"FLY" in refused.stderr) == (125, True)


def test_no_new_privileges_takes_setuid_away(box: PrivateEngine) -> None:
    program = tarfile.TarInfo("euid")
    program.mode, program.size = 0o4755, len(elf(EXIT_WITH_EUID))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(program, io.BytesIO(elf(EXIT_WITH_EUID)))
    box.proa("import", "-", "setuid:1", stdin=archive.getvalue())
    run = ("run", "--rm", "--network", "none", "--user", "1000")
    assert box.proa(*run, "setuid:1", "/euid", check=False).returncode == 0
    held = box.proa(*run, "--security-opt", "no-new-privileges", "setuid:1", "/euid", check=False)
    assert held.returncode == 1000 & 0xFF


def test_privileged_can_do_what_others_cannot(box: PrivateEngine) -> None:
    script = (
        "mount -t tmpfs none /tmp && hostname other && hostname && echo third > /proc/sys/kernel/hostname && hostname"
    )
    assert box.sh(script, "--privileged").split() == ["other", "third"]
    assert os.uname().nodename != "other"


def test_proc_and_sys(box: PrivateEngine) -> None:
    script = """
    for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do [ -e $f ] && wc -c < $f; done
    for d in /proc/acpi /proc/scsi /sys/firmware /proc/asound; do [ -d $d ] && ls $d; done
    grep -E ' /(proc/(bus|fs|irq|sys|sysrq-trigger)|sys|sys/fs/cgroup) ' /proc/mounts | cut -d' ' -f2,4 | cut -d, -f1
    """
    seen = box.sh(script).splitlines()
    protected = [line for line in seen if line.startswith("/")]
    assert set(seen) - set(protected) <= {"0"}
    assert {line.split()[0] for line in protected} >= {"/sys", "/sys/fs/cgroup", "/proc/sys", "/proc/irq"}
    assert {line.split()[1] for line in protected} == {"ro"}
    assert box.sh("echo x > /proc/self/comm; cat /proc/self/comm").strip() != ""


def test_it_has_no_file_of_the_host_open(box: PrivateEngine) -> None:
    assert box.sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    for line in box.sh("ls -l /proc/1/fd /proc/self/fd; readlink /proc/1/cwd; readlink /proc/1/exe").splitlines():
        assert "/tmp/" not in line
        assert "memfd" not in line
        assert "socket" not in line
    box.proa("run", "-d", "--name", "long", "--network", "none", "busybox", "sleep", "1000")
    assert len(box.out("exec", "long", "ls", "/proc/1/fd").split()) == 3
    assert len(box.out("exec", "long", "sh", "-c", "ls /proc/$$/fd; true").split()) == 3


def test_the_environment_is_made_from_nothing(box: PrivateEngine) -> None:
    env = {"SECRET": "hunter2", "GIVEN": "from here"}
    seen = box.out("run", "--rm", "--network", "none", "-e", "GIVEN", "-e", "A=1", "busybox", "env", env=env)
    assert sorted(line.partition("=")[0] for line in seen.splitlines()) == ["A", "GIVEN", "HOME", "HOSTNAME", "PATH"]
    assert "GIVEN=from here" in seen
    assert "hunter2" not in seen
    # Nor through a process of ours that runs in there before the program does.
    box.proa("run", "-d", "--name", "long", "--network", "none", "busybox", "sleep", "1000", env=env)
    assert "hunter2" not in box.out("exec", "long", "sh", "-c", "cat /proc/*/environ | tr '\\0' '\\n'", env=env)


def test_read_only(box: PrivateEngine, tmp_path: Path) -> None:
    script = "touch /x; touch /etc/hosts; for d in /dev/shm /data /run; do touch $d/ok && echo $d; done"
    options = ("--read-only", "--tmpfs", "/run", "-v", f"{tmp_path}:/data")
    done = box.proa("run", "--rm", "--network", "none", *options, "busybox", "sh", "-c", script)
    assert done.stdout.split() == [b"/dev/shm", b"/data", b"/run"]
    assert done.stderr.count(b"Read-only file system") == 2
    assert (tmp_path / "ok").exists()


def test_bind_mounts(box: PrivateEngine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("from the host\n")
    (tmp_path / "single").write_text("one file\n")
    seen = box.proa(
        *("run", "--rm", "--network", "none", "-v", f"{data}:/rw", "-v", f"{data}:/ro:ro"),
        *("-v", f"{tmp_path}/single:/etc/single:ro", "--mount", f"type=bind,src={data},dst=/m,readonly"),
        *(
            "busybox",
            "sh",
            "-c",
            "cat /rw/file /etc/single; echo in > /rw/made; touch /ro/x; touch /etc/single; touch /m/x; true",
        ),
    )
    assert seen.stdout == b"from the host\none file\n"
    assert seen.stderr.count(b"Read-only file system") == 3
    assert sorted(p.name for p in data.iterdir()) == ["file", "made"]
    # A missing source is made by -v and refused by --mount.
    box.sh("touch /new/here", "-v", f"{tmp_path}/fresh:/new")
    assert (tmp_path / "fresh" / "here").exists()
    refused = box.proa(
        "run", "--rm", "--mount", f"type=bind,src={tmp_path}/none,dst=/x", "busybox", "true", check=False
    )
    assert refused.returncode == 125
    assert b"bind source path does not exist" in refused.stderr


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/sys/kernel", "/proc/../proc/sys", "/"])
def test_mounts_that_would_break_isolation_are_refused(box: PrivateEngine, tmp_path: Path, target: str) -> None:
    refused = box.proa("run", "--rm", "-v", f"{tmp_path}:{target}", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert refused.stderr.count(b"\n") <= 2


def test_volumes_keep_what_containers_leave(box: PrivateEngine) -> None:
    box.sh("echo kept > /v/file", "-v", "vol:/v")
    assert box.sh("cat /v/file", "-v", "vol:/v:ro") == "kept"
    box.proa("volume", "rm", "vol")


def test_too_much_memory_is_an_oom_kill(box: PrivateEngine) -> None:
    hungry = "tail -c 200000000 /dev/zero"
    done = box.proa(
        "run", "--name", "hungry", "--network", "none", "--memory", "16m", "busybox", *hungry.split(), check=False
    )
    assert done.returncode == 137
    state = box.inspect("hungry")["State"]
    assert (state["OOMKilled"], state["ExitCode"], state["Status"]) == (True, 137, "exited")
    # A kill that is no lack of memory is told apart.
    box.proa("run", "-d", "--name", "killed", "--network", "none", "--memory", "16m", "busybox", "sleep", "1000")
    box.proa("kill", "killed")
    box.proa("wait", "killed")
    assert box.inspect("killed")["State"]["OOMKilled"] is False


def test_limits_reach_the_cgroup(box: PrivateEngine) -> None:
    limits = ("--memory", "64m", "--cpus", "0.5", "--pids-limit", "33")
    box.proa("run", "-d", "--name", "limited", "--network", "none", *limits, "busybox", "sleep", "1000")

    def read(*names: str) -> list[str]:
        script = "; ".join(f"cat /sys/fs/cgroup/{name}" for name in names)
        return box.out("exec", "limited", "sh", "-c", script).split()

    if Path("/sys/fs/cgroup/memory").is_dir():
        files = ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "pids/pids.max")
        assert read(*files) == [str(64 << 20), "50000", "100000", "33"]
    else:
        assert read("memory.max", "cpu.max", "pids.max") == [str(64 << 20), "50000", "100000", "33"]
    host = box.inspect("limited")["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 33)
    refused = box.proa("run", "--rm", "--memory", "1m", "busybox", "true", check=False)
    assert (refused.returncode, b"Minimum memory limit allowed is 6MB" in refused.stderr) == (125, True)


def test_the_number_of_processes_is_limited(box: PrivateEngine) -> None:
    script = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all"
    done = box.proa(
        "run", "--rm", "--network", "none", "--pids-limit", "20", "busybox", "sh", "-c", script, check=False
    )
    assert b"all" not in done.stdout or b"can't fork" in done.stderr
    assert b"can't fork" in done.stderr


def test_init_reaps_what_nobody_else_does(box: PrivateEngine) -> None:
    orphans = "(sleep 0 & exec sleep 0) & (sleep 0 &); sleep 1000 & wait"
    box.proa("run", "-d", "--name", "init", "--init", "--network", "none", "busybox", "sh", "-c", orphans)
    first = box.out("exec", "init", "ps", "-o", "pid,comm").splitlines()[1].split()
    assert first[0] == "1"
    assert first[1] != "sh"
    box.proa("exec", "init", "sh", "-c", "(sleep 0.01 &) ; (sleep 0.02 &)")
    until(lambda: " Z" not in box.out("exec", "init", "ps", "-o", "pid,stat"), "init to reap")
    box.proa("stop", "-t", "20", "init")  # its init passes TERM on: no need for KILL
    assert box.inspect("init")["State"]["ExitCode"] == 143


def test_the_images_user_and_groups(box: PrivateEngine) -> None:
    def ids(user: str) -> str:
        return box.sh("id -u; id -g; id -G; echo $HOME; pwd", "--user", user).replace("\n", " ")

    assert ids("user") == "1000 1000 1000 2000 /home/user /"
    assert ids("1000:2000") == "1000 2000 2000 /home/user /"
    assert ids("user:extra") == "1000 2000 2000 /home/user /"
    assert ids("4321") == "4321 0 0 / /"
    for bad in ("nosuch", "1000:nosuch", "-1", "4294967295", "1e3", "0x1"):
        refused = box.proa("run", "--rm", "--network", "none", "--user", bad, "busybox", "id", check=False)
        assert (refused.returncode, refused.stdout) in ((125, b""), (126, b"")), bad
        assert len(re.findall(rb"^proa: ", refused.stderr, re.MULTILINE)) == 1, refused.stderr
