"""The requests by which cri-dockerd runs a pod's containers, and the answers that it takes apart.

The program itself is in no package index, so its calls are made here by docker-py's low-level client: a sandbox that
holds the namespaces, a container that joins them, and what the kubelet asks of both.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from engines import PrivateEngine, until

pytestmark = [pytest.mark.root, pytest.mark.peers]

KIND, SANDBOX_ID, LOG_PATH = (f"io.kubernetes.{word}" for word in ("docker.type", "sandbox.id", "container.logpath"))
SANDBOX = f"k8s_POD_{'web' * 80}_{'namespace' * 7}_uid_0"  # Kubernetes' names are as long as that


@pytest.fixture
def client(box: PrivateEngine) -> Iterator[docker.APIClient]:
    made = docker.APIClient(base_url=box.socket, version="auto")
    yield made
    made.close()


@pytest.fixture
def parent(box: PrivateEngine) -> Iterator[str]:
    """A cgroup that belongs to the kubelet: the engine leaves it."""
    name = f"pods-test-{os.getpid()}"
    yield f"/{name}"
    if left := box.out("ps", "-aq").split():
        box.proa("rm", "-f", *left)
    for place in (Path("/sys/fs/cgroup") / name, *Path("/sys/fs/cgroup").glob(f"*/{name}")):
        if place.is_dir() and not place.is_symlink():
            place.rmdir()


def _post(client: docker.APIClient, target: str, body: Any = None, **query: Any) -> Any:
    return client._post_json(client._url(target), data=body, params=query)


def _sandbox(client: docker.APIClient, parent: str) -> str:
    host = {"IpcMode": "shareable", "OomScoreAdj": -998, "CpuShares": 2, "MemorySwap": 0, "CgroupParent": parent}
    host |= {"SecurityOpt": ["seccomp=unconfined"], "NetworkMode": "default", "PortBindings": {}, "MaskedPaths": None}
    host |= {"Sysctls": {"net.ipv4.ip_local_port_range": "1024 65000"}}
    labels = {KIND: "podsandbox", "io.kubernetes.container.name": "POD", "annotation.note": "kept"}
    body = {"Image": "busybox", "Hostname": "web", "Cmd": ["sleep", "1000"], "Labels": labels, "HostConfig": host}
    made = _post(client, "/containers/create", body, name=SANDBOX)
    again = _post(client, "/containers/create", body, name=SANDBOX)
    found = re.search(r'Conflict\. (?:.)+ is already in use by container "?([0-9a-z]+)"?', again.json()["message"])
    assert (again.status_code, found and found[1]) == (409, made.json()["Id"])
    sandbox = str(made.json()["Id"])
    assert _post(client, f"/containers/{sandbox}/start").status_code == 204
    return sandbox


def _container(client: docker.APIClient, sandbox: str, parent: str, tmp_path: Path) -> str:
    (tmp_path / "termination").touch()
    joined = f"container:{sandbox}"
    host = {"NetworkMode": joined, "IpcMode": joined, "PidMode": joined, "UTSMode": "", "CgroupParent": parent}
    host |= {"RestartPolicy": {"Name": "no"}, "Binds": [f"{tmp_path}/termination:/dev/termination-log"]}
    host |= {"SecurityOpt": ["seccomp=unconfined", "no-new-privileges"], "OomScoreAdj": 1000, "ReadonlyRootfs": True}
    host |= {"CpuShares": 2, "CpuPeriod": 100000, "CpuQuota": 50000, "Memory": 64 << 20, "MemorySwap": 64 << 20}
    host |= {"CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "GroupAdd": ["1000"], "Devices": []}
    host |= {"MaskedPaths": ["/proc/acpi"], "ReadonlyPaths": ["/proc/bus"]}
    script = "cat /etc/resolv.conf; hostname; echo why > /dev/termination-log; echo bad >&2; sleep 1000"
    labels = {KIND: "container", SANDBOX_ID: sandbox, LOG_PATH: f"{tmp_path}/0.log"}
    body = {"Image": "busybox", "Entrypoint": ["sh", "-c"], "Cmd": [script], "Env": ["A=b"], "Labels": labels}
    body |= {"OpenStdin": True, "StdinOnce": False, "Healthcheck": {"Test": ["NONE"]}, "HostConfig": host}
    made = _post(client, "/containers/create", body, name="k8s_c_web_default_uid_0")
    assert made.status_code == 201, made.text
    container = str(made.json()["Id"])
    assert _post(client, f"/containers/{container}/start").status_code == 204
    return container


def test_a_pod(client: docker.APIClient, parent: str, tmp_path: Path) -> None:
    assert tuple(map(int, client.version()["ApiVersion"].split("."))) >= (1, 42)
    facts = client.info()
    assert (facts["CgroupDriver"], facts["LoggingDriver"]) == ("cgroupfs", "json-file")
    assert "cri" in facts["Plugins"]["Log"]
    assert os.statvfs(facts["DockerRootDir"])
    features = facts["Runtimes"]["proa"]["status"]["org.opencontainers.runtime-spec.features"]
    assert "rro" in json.loads(features)["mountOptions"]  # else it makes no mount read-only as a whole
    assert client.inspect_image("busybox")["RepoTags"] == ["busybox:latest"]
    with pytest.raises(docker.errors.NotFound, match="No such image"):
        client.inspect_image("pause:none")

    sandbox = _sandbox(client, parent)
    shown = client.inspect_container(sandbox)
    assert shown["Name"] == f"/{SANDBOX}"
    assert re.fullmatch(r"[0-9.]+", shown["NetworkSettings"]["IPAddress"])
    assert os.readlink(f"/proc/{shown['State']['Pid']}/ns/net").startswith("net:")
    Path(shown["ResolvConfPath"]).write_text("nameserver 192.0.2.53\nsearch cluster.local\n")  # written anew in place

    container = _container(client, sandbox, parent, tmp_path)
    shown = client.inspect_container(container)
    link = tmp_path / "0.log"
    link.symlink_to(shown["LogPath"])
    until(lambda: link.exists() and "bad" in link.read_text(), "the log's file")
    lines = [json.loads(line) for line in link.read_text().splitlines()]
    told = [line["log"] for line in lines if line["stream"] == "stdout"]
    assert told == ["nameserver 192.0.2.53\n", "search cluster.local\n", "web\n"]
    assert [line["log"] for line in lines if line["stream"] == "stderr"] == ["bad\n"]
    assert (tmp_path / "termination").read_text() == "why\n"
    assert client.logs(container, stdout=False, tail=1, since=1) == b"bad\n"

    filters = {"label": [f"{KIND}=container", f"{SANDBOX_ID}={sandbox}"], "status": ["running"]}
    rows = client._get(client._url("/containers/json"), params={"all": 1, "filters": json.dumps(filters)}).json()
    assert [(row["Id"], row["State"], row["Names"]) for row in rows] == [(container, "running", [shown["Name"]])]
    sample = client.stats(container, stream=False)
    assert sample["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert sample["memory_stats"]["usage"] > 0
    assert client._get(client._url(f"/containers/{container}/json"), params={"size": 1}).json()["SizeRw"] >= 0

    ran = client.exec_create(container, ["sh", "-c", "id -G; pidof sleep | wc -w; echo $A; exit 5"])["Id"]
    assert client.exec_start(ran) == b"0 1000\n2\nb\n"  # its own and the sandbox's sleep
    assert (client.exec_inspect(ran)["ExitCode"], client.exec_inspect(ran)["Running"]) == (5, False)
    typed = client.exec_create(container, ["sh"], stdin=True, tty=True)["Id"]
    stream = client.exec_start(typed, tty=True, socket=True)
    client.exec_resize(typed, height=40, width=100)
    stream._sock.sendall(b"stty size; exit\n")
    assert b"40 100" in b"".join(iter(lambda: stream._sock.recv(4096), b""))
    stream._sock.close()
    stream._response.close()
    stream.close()
    larger = {"CpuShares": 10, "CpuQuota": 60000, "CpuPeriod": 100000, "Memory": 80 << 20, "MemorySwap": 80 << 20}
    assert _post(client, f"/containers/{container}/update", larger).status_code == 200
    assert client.inspect_container(container)["HostConfig"]["Memory"] == 80 << 20

    assert _post(client, f"/containers/{container}/stop", t=0).status_code == 204
    state = client.inspect_container(container)["State"]
    assert (state["Status"], state["OOMKilled"]) == ("exited", False)
    assert state["ExitCode"] in (137, 143)  # it is not the first process of its namespace, so the first signal ends it
    assert state["FinishedAt"] > state["StartedAt"]
    assert _post(client, f"/containers/{container}/stop", t=0).status_code == 304
    assert _post(client, f"/containers/{sandbox}/stop", t=0).status_code == 204
    for one in (container, sandbox):
        client.remove_container(one, v=True, force=True)
        with pytest.raises(docker.errors.NotFound, match="No such container"):
            client.remove_container(one, v=True, force=True)
