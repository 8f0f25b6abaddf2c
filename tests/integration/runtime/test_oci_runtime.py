"""The verbs of `proa-runtime`, as processes, on real containers."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from bundles import PROGRAM, Bundle

from proa.linux.sockets import receive_fds
from proa.runtime.verbs.spec import example

pytestmark = pytest.mark.root


def test_a_container_is_created_started_killed_and_deleted(bundle: Bundle) -> None:
    bundle.own_root()
    bundle.config["root"]["readonly"] = False
    bundle.config["annotations"] = {"org.example": "kept"}
    bundle.args("sh", "-c", "echo ran > /ran; exec sleep 100")
    bundle.create("--pid-file", str(bundle.path / "pid"))
    state = bundle.state()
    assert state["status"] == "created"
    assert state["pid"] == int((bundle.path / "pid").read_text())
    assert state["annotations"] == {"org.example": "kept"}
    assert state["bundle"] == str(bundle.path)
    assert not (bundle.rootfs / "ran").exists()
    bundle.must("start", bundle.id)
    assert bundle.state()["status"] == "running"
    assert "created" in bundle.call("start", bundle.id).stderr or bundle.call("start", bundle.id).returncode == 1
    refused = bundle.call("delete", bundle.id)
    assert refused.returncode == 1
    assert "not stopped" in refused.stderr
    bundle.must("kill", bundle.id, "KILL")
    bundle.wait()
    assert (bundle.rootfs / "ran").read_text() == "ran\n"
    assert bundle.state()["pid"] == 0
    gone = bundle.call("kill", bundle.id, "TERM")
    assert gone.returncode == 1
    assert "container not running" in gone.stderr
    bundle.must("kill", "--all", bundle.id, "9")
    bundle.must("delete", bundle.id)
    missing = bundle.call("state", bundle.id)
    assert missing.returncode == 1
    assert "does not exist" in missing.stderr


def test_run_gives_output_and_exit_status(bundle: Bundle) -> None:
    done = bundle.args("sh", "-c", "echo out; echo err >&2; exit 7").run()
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert not (bundle.state_root / bundle.id).exists()
    killed = bundle.args("sh", "-c", "kill -9 $$").run()
    assert killed.returncode in (137, 0)  # process 1 of a pid namespace does not kill itself
    assert json.loads(bundle.must("list", "--format", "json")) == []


def test_a_missing_command_fails_at_creation_and_leaves_nothing(bundle: Bundle) -> None:
    bundle.args("/no/such/command")
    done = bundle.call("create", "--bundle", str(bundle.path), bundle.id)
    assert done.returncode == 1
    assert 'exec: "/no/such/command": no such file or directory' in done.stderr
    entry = bundle.logged()[-1]
    assert entry["level"] == "error"
    assert "/no/such/command" in entry["msg"]
    assert entry["time"].startswith("20")
    bundle.args("nothing-of-this-name")
    done = bundle.call("create", "--bundle", str(bundle.path), bundle.id)
    assert 'exec: "nothing-of-this-name": executable file not found in $PATH' in done.stderr
    assert bundle.call("state", bundle.id).returncode == 1


def test_an_id_is_used_once(bundle: Bundle) -> None:
    bundle.args("sleep", "100").create()
    again = bundle.call("create", "--bundle", str(bundle.path), bundle.id)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert bundle.state()["status"] == "created"
    for bad in ("..", "a/b", "", "x" * 300):
        assert bundle.call("create", "--bundle", str(bundle.path), bad).returncode == 1


def test_a_created_container_can_be_killed_and_is_not_deleted_without_force(bundle: Bundle) -> None:
    bundle.args("sleep", "100").create()
    assert bundle.call("delete", bundle.id).returncode == 1
    bundle.must("kill", bundle.id, "SIGKILL")
    bundle.wait()
    assert bundle.call("start", bundle.id).returncode == 1
    bundle.must("delete", bundle.id)
    bundle.must("delete", "--force", bundle.id)  # of nothing: that is what callers expect


def test_exec_runs_beside_the_first_process(bundle: Bundle) -> None:
    bundle.args("sleep", "100").create()
    bundle.must("start", bundle.id)
    done = bundle.call("exec", "--env", "A=b", "--cwd", "/tmp", "--user", "1000:1000", bundle.id,
                       "sh", "-c", 'echo "$A $(pwd) $(id -u)"; exit 5')  # fmt: skip
    assert (done.returncode, done.stdout) == (5, "b /tmp 1000\n")
    caps = bundle.must("exec", "--cap", "CAP_NET_RAW", bundle.id, "grep", "Cap", "/proc/self/status")
    sets = dict(line.split() for line in caps.splitlines())
    assert int(sets["CapEff:"], 16) >> 13 & 1
    assert int(sets["CapInh:"], 16) == int(sets["CapAmb:"], 16) == 0
    process = bundle.path / "process.json"
    process.write_text(json.dumps({**bundle.process, "args": ["sh", "-c", "exec sleep 99"]}))
    pid_file = bundle.path / "exec.pid"
    bundle.must("exec", "--process", str(process), "--detach", "--pid-file", str(pid_file), bundle.id,
                capture_output=False, stdout=subprocess.DEVNULL)  # fmt: skip
    pids = json.loads(bundle.must("ps", "--format", "json", bundle.id))
    assert int(pid_file.read_text()) in pids
    assert "sleep 99" in bundle.must("ps", bundle.id)
    missing = bundle.call("exec", bundle.id, "no-such-command")
    assert missing.returncode == 1
    assert "executable file not found" in missing.stderr
    bundle.must("kill", bundle.id, "9")
    bundle.wait()
    assert "container not running" in bundle.call("exec", bundle.id, "true").stderr


class ConsoleSocket:
    """Takes one terminal's master, as conmon does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(20)

    def master(self) -> int:
        with self.listener, self.listener.accept()[0] as connection:
            return receive_fds(connection, 4096)[1][0]


def read_terminal(master: int, until: bytes) -> bytes:
    seen = b""
    while until not in seen:
        try:
            seen += os.read(master, 4096)
        except OSError:
            break
    return seen


def test_terminals_go_to_the_console_socket(bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 33, "width": 77}
    bundle.args("sh", "-c", "stty size; tty; read line; echo got $line; sleep 100")
    assert bundle.call("create", "--bundle", str(bundle.path), bundle.id).returncode == 1
    console = ConsoleSocket(tmp_path / "c")
    bundle.create("--console-socket", str(console.path))
    master = console.master()
    bundle.must("start", bundle.id)
    assert b"33 77\r\n/dev/pts/0\r\n" in read_terminal(master, b"pts/0\r\n")
    os.write(master, b"words\n")
    assert b"got words" in read_terminal(master, b"got words")
    console = ConsoleSocket(tmp_path / "d")
    process = {**bundle.process, "args": ["tty"], "terminal": True}
    (tmp_path / "process.json").write_text(json.dumps(process))
    bundle.must("exec", "--process", str(tmp_path / "process.json"), "--detach", "--console-socket", str(console.path),
                bundle.id, capture_output=False)  # fmt: skip
    second = console.master()
    assert b"/dev/pts/1" in read_terminal(second, b"pts/1")
    os.close(master)
    os.close(second)


def test_run_with_a_terminal_is_the_callers_terminal(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.args("sh", "-c", "tty; read line; echo got $line; exit 6")
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x14\0\x50\0\0\0\0\0")
    bundle.call("features")
    program = [PROGRAM, "--root", str(bundle.state_root), "run", "--bundle", str(bundle.path), bundle.id]
    running = subprocess.Popen(program, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    assert b"/dev/pts/0" in read_terminal(master, b"pts/0")
    os.write(master, b"it\r")
    assert b"got it" in read_terminal(master, b"got it")
    assert running.wait(20) == 6
    os.close(master)


def test_run_passes_signals_on(bundle: Bundle) -> None:
    bundle.args("sh", "-c", "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    bundle.call("features")
    program = [PROGRAM, "--root", str(bundle.state_root), "run", "--bundle", str(bundle.path), bundle.id]
    with subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.terminate()
        assert running.stdout.readline() == "term\n"
        assert running.wait(20) == 9


def test_pause_resume_update_and_events(bundle: Bundle) -> None:
    bundle.config["linux"]["resources"]["pids"] = {"limit": 40}
    bundle.args("sleep", "100").create()
    bundle.must("start", bundle.id)
    bundle.must("pause", bundle.id)
    assert bundle.state()["status"] == "paused"
    bundle.must("resume", bundle.id)
    assert bundle.state()["status"] == "running"
    bundle.must("update", "--memory", "64m", "--memory-swap", "64m", bundle.id)
    resources = json.dumps({"pids": {"limit": 33}, "devices": [{"allow": False}]})
    bundle.must("update", "--resources", "-", bundle.id, input=resources, stdin=None)
    event = json.loads(bundle.must("events", "--stats", bundle.id))
    assert event["type"] == "stats"
    assert event["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert event["data"]["pids"] == {"current": 1, "limit": 33}
    bundle.must("pause", bundle.id)
    bundle.must("kill", bundle.id, "KILL")  # also what is paused
    bundle.wait()


def test_only_a_running_container_is_paused_and_only_a_paused_one_resumed(bundle: Bundle) -> None:
    bundle.args("sleep", "100").create()
    bundle.must("start", bundle.id)
    assert bundle.call("resume", bundle.id).returncode == 1
    table = bundle.must("list")
    assert table.split()[:3] == ["ID", "PID", "STATUS"]
    assert bundle.must("list", "-q") == bundle.id + "\n"
    bundle.must("pause", bundle.id)
    assert bundle.call("pause", bundle.id).returncode == 1
    assert "paused" in bundle.call("exec", bundle.id, "true").stderr
    bundle.must("delete", "--force", bundle.id)


def hook(bundle: Bundle, kind: str, script: str, **more: Any) -> None:
    entry = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"KIND={kind}"], **more}
    bundle.config.setdefault("hooks", {}).setdefault(kind, []).append(entry)


def test_all_six_hooks_run_in_order_with_the_state(bundle: Bundle) -> None:
    root = bundle.own_root()
    bundle.config["root"]["readonly"] = False
    log = root / "hooks"
    for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        hook(bundle, kind, f'echo "$KIND $(cat) $(readlink /proc/self/ns/mnt)" >> {log}')
    hook(bundle, "startContainer", 'echo "$KIND $(cat) $(readlink /proc/self/ns/mnt)" >> /hooks')
    bundle.args("sh", "-c", "echo program >> /hooks")
    bundle.create()
    bundle.must("start", bundle.id)
    bundle.wait()
    bundle.must("delete", bundle.id)
    lines = log.read_text().splitlines()
    # The program may be faster or slower than poststart, which is of no concern to it.
    order = [line.split()[0] for line in lines if line != "program"]
    assert order == ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    assert "program" in lines
    states = {line.split()[0]: json.loads(line.split(" ", 1)[1].rpartition(" ")[0]) for line in lines if "{" in line}
    assert [states[kind]["status"] for kind in order] == [
        "creating", "creating", "creating", "created", "running", "stopped"
    ]  # fmt: skip
    assert {state["id"] for state in states.values()} == {bundle.id}
    assert states["createRuntime"]["pid"] == states["startContainer"]["pid"] > 1
    spaces = {line.split()[0]: line.rpartition(" ")[2] for line in lines if "{" in line}
    host = os.readlink("/proc/self/ns/mnt")
    assert spaces["prestart"] == spaces["createRuntime"] == spaces["poststart"] == host
    assert spaces["createContainer"] == spaces["startContainer"] != host


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_undoes_the_creation(bundle: Bundle, kind: str) -> None:
    hook(bundle, kind, "echo why not >&2; exit 3")
    hook(bundle, "poststop", f"touch {bundle.path}/stopped")
    done = bundle.args("true").call("create", "--bundle", str(bundle.path), bundle.id)
    assert done.returncode == 1
    assert f"{kind} hook /bin/sh failed: exit status 3: why not" in done.stderr
    assert bundle.call("state", bundle.id).returncode == 1
    assert (bundle.path / "stopped").exists()


def test_a_hook_that_hangs_is_ended(bundle: Bundle) -> None:
    hook(bundle, "createRuntime", "exec sleep 100", timeout=1)
    start = time.monotonic()
    done = bundle.args("true").call("create", "--bundle", str(bundle.path), bundle.id)
    assert "took more than 1 s" in done.stderr
    assert time.monotonic() - start < 20


def test_preserved_descriptors_are_inherited_and_others_are_not(bundle: Bundle) -> None:
    with open(bundle.path / "three", "w+") as three, open(bundle.path / "other", "w") as other:
        kept = fcntl.fcntl(three.fileno(), fcntl.F_DUPFD, 100)
        stray = fcntl.fcntl(other.fileno(), fcntl.F_DUPFD, 100)

        def place() -> None:
            os.dup2(kept, 3)
            os.dup2(stray, 4)

        bundle.args("sh", "-c", "echo into three >&3; ls /proc/self/fd")
        done = bundle.run("--preserve-fds", "1", preexec_fn=place, close_fds=False)
        os.close(kept)
        os.close(stray)
        assert done.returncode == 0, done.stderr
        # ls itself opens the directory.
        assert done.stdout.split() == ["0", "1", "2", "3", "4"]
        assert (bundle.path / "three").read_text() == "into three\n"
    missing = bundle.run("--preserve-fds", "2")
    assert "is not open" in missing.stderr


def test_global_options_and_their_errors(bundle: Bundle) -> None:
    assert "spec: 1.2" in bundle.must("--version")
    assert "create" in bundle.must("--help")
    features = json.loads(bundle.must("features"))
    assert features["linux"]["seccomp"]["enabled"] is True
    assert "rro" in features["mountOptions"]
    systemd = bundle.call("--systemd-cgroup", "create", "--bundle", str(bundle.path), bundle.id)
    assert systemd.returncode == 1
    assert "systemd" in bundle.logged()[-1]["msg"]
    for words in (["no-such-verb"], ["state"], ["state", "a", "b"], ["create", "--no-such-option", "x"], ["kill"]):
        assert bundle.call(*words).returncode == 1, words
    target = bundle.path / "example"
    target.mkdir()
    bundle.must("spec", "--bundle", str(target))
    assert json.loads((target / "config.json").read_text())["process"]["args"] == ["sh"]
    assert bundle.call("spec", "--bundle", str(target)).returncode == 1


def test_cve_2019_5736_the_interpreter_is_out_of_reach(bundle: Bundle) -> None:
    root = bundle.own_root()
    script = root / "self"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    bundle.args("sleep", "100").create()
    assert os.readlink(f"/proc/{bundle.state()['pid']}/exe").startswith("/memfd:")
    bundle.must("start", bundle.id)
    done = bundle.call("exec", bundle.id, "/self")  # runs the sealed interpreter on itself: an error, and harmless
    assert done.returncode != 0
    bundle.call("exec", "--detach", bundle.id, "/self")


def test_cve_2024_21626_no_descriptor_leads_out(bundle: Bundle) -> None:
    for number in range(3, 12):
        bundle.process["cwd"] = f"/proc/self/fd/{number}"
        done = bundle.args("ls", "../../../../../work").run()
        assert done.returncode != 0, number
    bundle.process["cwd"] = "/"
    bundle.args("sleep", "100").create()
    bundle.must("start", bundle.id)
    for number in range(3, 12):
        assert bundle.call("exec", "--cwd", f"/proc/self/fd/{number}", bundle.id, "ls").returncode != 0, number


def test_cve_2024_3154_annotations_do_not_reach_the_runtime(bundle: Bundle) -> None:
    bundle.config["annotations"] = {"proa.seccomp": "nonsense", "proa.init": "true", "run.oci.hooks": "/bin/false"}
    bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "pid"]
    assert bundle.args("true").run().returncode == 0


def test_cve_2022_29162_no_inheritable_capabilities(bundle: Bundle) -> None:
    done = bundle.args("grep", "-E", "Cap(Inh|Amb)", "/proc/self/status").run()
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"0" * 16}


def test_damaged_configurations_are_refused(bundle: Bundle) -> None:
    bundle.call("features")
    for text in ("", "{", "[]", '{"a": 1, "a": 2}', "{}", '{"ociVersion": "2.0.0"}', '{"ociVersion": "x"}', "{} {}"):
        (bundle.path / "config.json").write_text(text)
        program = [PROGRAM, "--root", str(bundle.state_root), "create", "--bundle", str(bundle.path), bundle.id]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert done.returncode == 1, text
        assert done.stderr.startswith("proa-runtime: "), text
        assert "Traceback" not in done.stderr


def test_in_a_user_namespace_of_one_id(bundle: Bundle) -> None:
    """As rootless podman calls it: root there, and no say over cgroups."""
    bundle.config = {**example(rootless=True), "root": bundle.config["root"]}
    bundle.process["terminal"] = False
    bundle.args("sh", "-c", "id -u; cat /proc/self/uid_map; exit 3")
    bundle.call("features")
    inside = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", PROGRAM]
    command = [*inside, "--root", str(bundle.state_root), "--log", str(bundle.log), "--log-format", "json"]
    done = subprocess.run(
        [*command, "run", "--bundle", str(bundle.path), bundle.id], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (3, ["0", "0", "0", "1"]), done.stderr
    assert any(entry["msg"].startswith("no cgroup") for entry in bundle.logged())
    bundle.config["linux"]["resources"] = {"pids": {"limit": 10}}  # a limit that was asked for is not left out
    bundle.call("features")
    done = subprocess.run(
        [*command, "run", "--bundle", str(bundle.path), bundle.id], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
