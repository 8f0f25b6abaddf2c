"""cri-dockerd, by which a kubelet uses an engine of Docker's API, and crictl, which asks it what a kubelet asks.

Where the programs are not, `test_pod_requests.py` makes the same requests.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import kubelets
import pytest
from engines import PrivateEngine, free_port, until
from kubelets import Kubelet
from terminals import Terminal

MISSING = kubelets.needed()
pytestmark = [pytest.mark.root, pytest.mark.peers, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

# Two runs at once must not give the same addresses away: the routes to them are the host's.
SUBNET = f"10.{200 + (os.getpid() >> 8) % 32}.{os.getpid() % 256}.0/24"
ENTRY = {"envs": [{"key": "A", "value": "b"}], "working_dir": "/tmp", "labels": {"tier": "front"}}


@pytest.fixture(params=["json-file", "cri"])
def kubelet(
    request: pytest.FixtureRequest,
    engine: PrivateEngine,
    hub: PrivateEngine,
    tmp_path: Path,
) -> Iterator[Kubelet]:
    """With the engine's own network and log, and with a CNI plugin and Kubernetes' log."""
    config = engine.directory / "proa.toml"
    config.write_text(f'log-driver = "{request.param}"\n{Path(hub.env["PROA_CONFIG"]).read_text()}')
    engine.env["PROA_CONFIG"] = str(config)
    made = Kubelet(engine, tmp_path, subnet=SUBNET if request.param == "cri" else "")
    yield made
    made.close()


def test_what_it_is_and_its_images(kubelet: Kubelet, engine: PrivateEngine) -> None:
    assert "RuntimeName:  docker" in kubelet.out("version")
    facts = json.loads(kubelet.out("info"))
    conditions = {row["type"]: row["status"] for row in facts["status"]["conditions"]}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True}
    handlers = {row.get("name", ""): row["features"] for row in facts["runtimeHandlers"]}
    assert handlers[""] == handlers["proa"] == {"recursive_read_only_mounts": True}
    kubelet.out("pull", "busybox")
    rows = json.loads(kubelet.out("images", "-o", "json"))["images"]
    assert ["busybox:latest"] in [row["repoTags"] for row in rows]
    shown = kubelet.status("inspecti", "busybox")
    assert (shown["id"], shown["repoTags"]) == (engine.inspect("busybox")["Id"], ["busybox:latest"])
    assert int(shown["size"]) > 1_000_000
    missing = kubelet.asks("pull", "busybox:none")
    assert (missing.returncode, "busybox:none" in missing.stderr) == (1, True), missing.stderr
    assert "no such image" in kubelet.asks("inspecti", "busybox:none").stderr
    kubelet.out("rmi", shown["id"])
    assert kubelet.asks("inspecti", "busybox").returncode == 1
    file_system = json.loads(kubelet.out("imagefsinfo"))["status"]["imageFilesystems"][0]
    assert file_system["fsId"]["mountpoint"] == str(engine.root)


def test_a_pod(kubelet: Kubelet, tmp_path: Path) -> None:
    kubelet.out("pull", "busybox")
    dns = {"servers": ["192.0.2.53"], "searches": ["cluster.local"], "options": ["ndots:5"]}
    sysctls = {"net.ipv4.ip_local_port_range": "1024 65000"}
    pod = kubelet.pod("web", hostname="web-host", dns_config=dns, labels={"app": "web"}, linux={"sysctls": sysctls})
    shown = kubelet.status("inspectp", pod[0])
    assert (shown["state"], shown["labels"], shown["metadata"]["name"]) == ("SANDBOX_READY", {"app": "web"}, "web")
    (tmp_path / "volume").mkdir()
    mounts = [
        {"container_path": "/data", "host_path": f"{tmp_path}/volume"},
        {"container_path": "/kept", "host_path": f"{tmp_path}/volume", "readonly": True, "recursive_read_only": True},
    ]
    security = {"no_new_privs": True, "supplemental_groups": [1000], "readonly_rootfs": True}
    security["capabilities"] = {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["MKNOD"]}
    limits = {"memory_limit_in_bytes": 64 << 20, "cpu_period": 100000, "cpu_quota": 50000, "oom_score_adj": 900}
    linux = {"resources": limits, "security_context": security}
    script = (
        "cat /etc/resolv.conf; hostname; echo bad >&2; echo Welcome > /data/index.html; httpd -p 80 -h /data;"
        "while read line; do echo got $line; done; sleep 1000"
    )
    one = kubelet.container(pod, "one", script, **ENTRY, mounts=mounts, linux=linux, stdin=True)
    rows = json.loads(kubelet.out("ps", "-o", "json"))["containers"]
    assert [(row["id"], row["podSandboxId"], row["state"]) for row in rows] == [(one, pod[0], "CONTAINER_RUNNING")]
    until(lambda: "bad" in kubelet.asks("logs", one).stderr, "the log")
    told = "nameserver 192.0.2.53\nsearch cluster.local\noptions ndots:5\nweb-host\n"
    assert kubelet.asks("logs", one).stdout == told
    assert (tmp_path / "logs/one.log").is_symlink()

    assert kubelet.out("exec", one, "sh", "-c", "id -G; echo $A; pwd") == "0 1000\nb\n/tmp"
    assert kubelet.out("exec", "-i", one, "cat", stdin="typed\n" * 1000) == ("typed\n" * 1000).rstrip()
    assert kubelet.out("exec", "-s", one, "cat", "/proc/self/oom_score_adj", "/data/index.html") == "900\nWelcome"
    for way in ((), ("-s",)):
        failed = kubelet.asks("exec", *way, one, "sh", "-c", "echo why >&2; exit 7")
        assert (failed.returncode, "7" in failed.stderr, "why" in failed.stderr) == (1, True, True), failed.stderr
    assert "Read-only" in kubelet.asks("exec", one, "touch", "/kept/x").stderr
    with subprocess.Popen(kubelet.command("attach", "-i", one), stdin=PIPE, stdout=PIPE) as attached:
        assert attached.stdin
        assert attached.stdout
        attached.stdin.write(b"a line\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"got a line\n"
    port = free_port()
    with subprocess.Popen(kubelet.command("port-forward", pod[0], f"{port}:80"), stdout=subprocess.DEVNULL) as forward:
        until(lambda: _answers(f"http://127.0.0.1:{port}/") == b"Welcome\n", "the forwarded port")
        forward.terminate()
    assert _answers(f"http://{shown['network']['ip']}/") == b"Welcome\n"

    kubelet.out("update", "--memory", str(80 << 20), "--cpu-quota", "60000", one)
    until(lambda: _used(kubelet, one) > (0, 0), "the statistics of the container")
    assert kubelet.out("stop", "--timeout", "0", one) == kubelet.out("stop", "--timeout", "0", one) == one
    ended = kubelet.status("inspect", one)
    assert (ended["state"], ended["reason"]) == ("CONTAINER_EXITED", "Error")
    assert ended["exitCode"] in (137, 143)  # it is not the first process of the pod, so the first signal ends it
    assert kubelet.status("inspect", kubelet.container(pod, "two", "exit 0"))["metadata"]["name"] == "two"
    assert kubelet.out("rm", one).startswith(one)
    assert "No such container" in kubelet.asks("inspect", one).stderr
    kubelet.out("stopp", pod[0])
    kubelet.out("stopp", pod[0])
    assert kubelet.status("inspectp", pod[0])["state"] == "SANDBOX_NOTREADY"
    kubelet.out("rmp", pod[0])
    assert kubelet.out("pods", "-q") == kubelet.out("ps", "-aq") == ""


def test_names_as_long_as_kubernetes_has_them(kubelet: Kubelet) -> None:
    kubelet.out("pull", "busybox")
    pod = kubelet.pod("p" * 253)
    one = kubelet.container(pod, "c" * 63, "exit 3")
    until(lambda: kubelet.status("inspect", one)["state"] == "CONTAINER_EXITED", "the container to end")
    assert kubelet.status("inspect", one)["exitCode"] == 3
    assert kubelet.status("inspectp", pod[0])["metadata"]["name"] == "p" * 253
    again = kubelet.asks("runp", str(pod[1]))  # which finds the name taken, and takes it from a pod that is gone
    assert (again.returncode, "is already in use by container" in again.stderr) == (1, True), again.stderr


def test_terminals(kubelet: Kubelet, engine: PrivateEngine) -> None:
    kubelet.out("pull", "busybox")
    pod = kubelet.pod("tty")
    one = kubelet.container(
        pod,
        "one",
        "read line; echo heard $line; until stty size | grep 91; do sleep 0.01; done; sleep 1000",
        tty=True,
        stdin=True,
    )
    typed = Terminal(kubelet.command("exec", "-it", one, "sh"), {**engine.env, "TERM": "xterm"}, (31, 87))
    # The size comes when the shell runs already.
    typed.send(b"until stty size | grep 87; do sleep 0.01; done; echo en''d\n")
    assert b"31 87" in typed.expect(b"end")
    typed.send(b"exit\n")
    assert typed.end() == 0
    attached = Terminal(kubelet.command("attach", "-it", one), {**engine.env, "TERM": "xterm"}, (33, 91))
    attached.send(b"me\n")
    attached.expect(b"heard me")
    attached.expect(b"33 91")
    attached.process.terminate()
    attached.end()


def _answers(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def _used(kubelet: Kubelet, container: str) -> tuple[int, int]:
    """Processor time in nanoseconds, and memory in bytes."""
    rows = json.loads(kubelet.out("stats", "-o", "json", container))["stats"]
    if not rows:
        return 0, 0
    return int(rows[0]["cpu"]["usageCoreNanoSeconds"]["value"]), int(rows[0]["memory"]["workingSetBytes"]["value"])
