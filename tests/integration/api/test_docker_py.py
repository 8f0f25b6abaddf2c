"""docker-py, unchanged, against the engine."""

from __future__ import annotations

import contextlib
import gc
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

pytestmark = [
    pytest.mark.root,
    # docker-py leaves the sockets of its streams to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(shared: Any) -> Iterator[Any]:
    client = docker.DockerClient(base_url=f"unix://{shared.socket}", version="auto", timeout=30)
    yield client
    client.close()
    gc.collect()  # now, while the warnings about its sockets are expected


@pytest.fixture
def box(client: Any) -> Iterator[Any]:
    container = client.containers.run("busybox", "sleep 1000", detach=True, network_mode="none", labels={"a": "b"})
    yield container
    container.remove(force=True)


def test_versions(client: Any) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["Driver"] == "overlay"
    assert client.df()["Images"]
    for version in ("1.24", "1.41", "1.45"):
        with contextlib.closing(
            docker.APIClient(base_url=client.api.base_url.replace("http+docker://localhost", ""), version=version)
        ):
            pass


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.41", "1.45", "1.51"])
def test_old_and_new_versions(shared: Any, version: str) -> None:
    with contextlib.closing(docker.DockerClient(base_url=f"unix://{shared.socket}", version=version)) as client:
        assert client.containers.run("busybox", "echo hi", remove=True, network_mode="none") == b"hi\n"
        assert client.images.get("busybox").tags == ["busybox:latest"]


def test_run(client: Any) -> None:
    assert client.containers.run("busybox", ["echo", "hi"], remove=True, network_mode="none") == b"hi\n"
    with pytest.raises(ContainerError) as caught:
        client.containers.run("busybox", "sh -c 'echo no >&2; exit 3'", remove=True, network_mode="none", stderr=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"no\n")


def test_errors_are_the_right_classes(client: Any) -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        client.containers.get("nope")
    with pytest.raises(ImageNotFound):
        client.images.get("nope")
    with pytest.raises(ImageNotFound):
        client.containers.create("nope")
    with pytest.raises(APIError) as caught:
        client.containers.create("busybox", name="bad name")
    assert caught.value.status_code == 400
    first = client.containers.create("busybox", name="twice")
    with pytest.raises(APIError, match="already in use") as caught:
        client.containers.create("busybox", name="twice")
    assert caught.value.status_code == 409
    first.remove()


def test_exec(box: Any) -> None:
    result = box.exec_run("sh -c 'echo out; echo err >&2; exit 4'", demux=True)
    assert (result.exit_code, result.output) == (4, (b"out\n", b"err\n"))
    stream = box.exec_run("sh -c 'echo 1; sleep 0.1; echo 2'", stream=True).output
    assert b"".join(stream) == b"1\n2\n"
    assert box.exec_run("tty", tty=True).output == b"/dev/pts/0\r\n"


def test_exec_with_stdin_over_a_raw_socket(client: Any, box: Any) -> None:
    made = client.api.exec_create(box.id, "cat", stdin=True)
    sock = client.api.exec_start(made["Id"], socket=True)
    raw = sock._sock
    raw.sendall(b"hello")
    raw.shutdown(socket.SHUT_WR)
    data = b""
    while piece := raw.recv(65536):
        data += piece
    assert data == b"\x01\0\0\0\0\0\0\x05hello"
    raw.close()
    sock.close()
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 0


def test_attach_and_wait(client: Any) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True, network_mode="none")
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw = sock._sock
    raw.sendall(b"in and out")
    raw.shutdown(socket.SHUT_WR)
    header = raw.recv(8, socket.MSG_WAITALL)
    assert header == b"\x01\0\0\0\0\0\0\x0a"
    assert raw.recv(10, socket.MSG_WAITALL) == b"in and out"
    assert container.wait()["StatusCode"] == 0  # docker-py asks for stdin to be closed with the connection
    raw.close()
    sock.close()
    container.remove()


def test_logs_and_attach_streams(client: Any) -> None:
    container = client.containers.run(
        "busybox", "sh -c 'for i in 1 2 3; do echo $i; sleep 0.1; done'", detach=True, network_mode="none"
    )
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.wait(condition="not-running")["StatusCode"] == 0
    assert container.logs(tail=1) == b"3\n"
    assert container.logs(stdout=False, stderr=True) == b""
    assert container.attach(logs=True, stream=False) == b"1\n2\n3\n"
    container.remove()


def test_list_inspect_stats_top(client: Any, box: Any) -> None:
    assert [c.id for c in client.containers.list(filters={"label": "a=b"})] == [box.id]
    assert box.attrs["HostConfig"]["NetworkMode"] == "none"
    assert box.stats(stream=False)["pids_stats"]["current"] == 1
    stream = box.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert second["preread"] == first["read"]
    stream.close()
    assert box.top()["Processes"][0][-1] == "sleep 1000"
    box.rename("renamed")
    box.reload()
    assert box.name == "renamed"
    box.pause()
    box.unpause()
    box.restart(timeout=0)
    assert box.diff() is not None


def test_images(client: Any, box: Any) -> None:
    image = box.commit(repository="py", tag="1", message="m", changes="CMD echo committed")
    assert client.containers.run("py:1", remove=True, network_mode="none") == b"committed\n"
    assert image.tag("py", "2")
    image.reload()
    assert sorted(image.tags) == ["py:1", "py:2"]
    assert image.history()[0]["Id"] == image.id
    archive = b"".join(image.save(named=True))
    client.images.remove(image.id, force=True)
    (loaded,) = client.images.load(archive)
    assert loaded.id == image.id
    client.images.remove(image.id, force=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "manifest.json" in tar.getnames()


def test_import(client: Any, busybox_tar: Any) -> None:
    result = client.api.import_image_from_data(busybox_tar.read_bytes(), repository="imported", tag="1")
    assert "sha256:" in result
    assert client.containers.run("imported:1", "echo ok", remove=True, network_mode="none") == b"ok\n"
    client.images.remove("imported:1")


def test_volumes_and_networks(client: Any) -> None:
    volume = client.volumes.create("pyvol", labels={"l": "1"})
    assert [v.name for v in client.volumes.list(filters={"label": "l=1"})] == ["pyvol"]
    volume.remove()
    assert {n.name for n in client.networks.list()} == {"bridge", "host", "none"}
    assert client.networks.get("none").attrs["Driver"] == "null"


def test_events(client: Any) -> None:
    seen = []
    stream = client.events(decode=True, filters={"type": "container"})

    def read() -> None:
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)
    client.containers.run("busybox", "true", remove=True, network_mode="none")
    reader.join(10)
    stream.close()
    assert [a for a in seen if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]


def test_prune(client: Any) -> None:
    client.containers.create("busybox", "true")
    assert len(client.containers.prune()["ContainersDeleted"]) == 1
    client.images.prune()
    client.volumes.prune()
