"""The engine's records as Docker's JSON."""

from __future__ import annotations

import msgspec
import pytest

from proa.api.translate import containers, human, images, stats
from proa.engine.types import (
    Container,
    ContainerConfig,
    EndpointSettings,
    Health,
    HostConfig,
    ImageRecord,
    LogConfig,
    MountPoint,
    PortBinding,
    RemovedImage,
    State,
)
from proa.errors import Invalid

ID = "ab" * 32


def _container(**changes: object) -> Container:
    container = Container(
        id=ID,
        name="brisk_ketch",
        created="2026-11-23T05:41:22.401400218Z",
        image_id="sha256:" + "1" * 64,
        image_name="bb:1",
        manifest="sha256:" + "2" * 64,
        chain_id="sha256:" + "3" * 64,
        platform="linux/amd64",
        config=ContainerConfig(image="bb:1", cmd=["sh", "-c", "echo hi"], exposed_ports={"80/tcp": {}, "53/udp": {}}),
        host=HostConfig(network_mode="bridge", log_config=LogConfig(type="json-file")),
        mounts=[MountPoint(type="bind", source="/tmp", destination="/x", mode="ro", rw=False, propagation="rprivate")],
        endpoints=[
            EndpointSettings(network="bridge", network_id="n", gateway="10.0.0.1", address="10.0.0.2", prefix=16)
        ],
        ports={"80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="8080")]},
        state=State(status="running", pid=7, started_at="2026-11-23T05:41:23Z"),
        path="sh",
        args=["-c", "echo hi"],
        labels={"k": "v"},
        directory="/root/containers/x",
    )
    return msgspec.structs.replace(container, **changes)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert human.duration(seconds) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(status="running"), "Up 5 minutes"),
        (State(status="running", health=Health(status="healthy")), "Up 5 minutes (healthy)"),
        (State(status="running", health=Health()), "Up 5 minutes (health: starting)"),
        (State(status="paused"), "Up 5 minutes (Paused)"),
        (State(status="exited", exit_code=3), "Exited (3) About a minute ago"),
        (State(status="restarting", exit_code=1), "Restarting (1) About a minute ago"),
        (State(status="created"), "Created"),
        (State(status="removing"), "Removal In Progress"),
        (State(status="dead"), "Dead"),
    ],
)
def test_status_in_words(state: State, words: str) -> None:
    assert human.status(state, 1000, 700, 930) == words


def test_summary() -> None:
    shown = containers.summary(_container(), 1795412500.0, (5, 10))
    assert shown["Names"] == ["/brisk_ketch"]
    assert shown["Command"] == "sh -c 'echo hi'"
    assert shown["Created"] == 1795412482
    assert shown["Status"] == "Up 17 seconds"
    assert (shown["SizeRw"], shown["SizeRootFs"]) == (5, 10)
    assert shown["Ports"] == [
        {"PrivatePort": 53, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "Type": "tcp", "PublicPort": 8080},
    ]
    assert shown["HostConfig"] == {"NetworkMode": "bridge"}
    assert "SizeRw" not in containers.summary(_container(), 0.0)
    assert containers.summary(_container(state=State(status="exited")), 0.0)["Ports"] == []


def test_inspect_has_what_clients_index() -> None:
    shown = containers.inspect(_container(), (1, 51), execs=["e"])
    assert shown["Name"] == "/brisk_ketch"
    assert shown["State"]["Running"] is True
    assert shown["State"]["Pid"] == 7
    assert shown["ExecIDs"] == ["e"]
    assert shown["Config"]["Cmd"] == ["sh", "-c", "echo hi"]
    assert "StopSignal" not in shown["Config"]
    assert shown["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert shown["HostConfig"]["Dns"] == []
    assert shown["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert "Mounts" not in shown["HostConfig"]
    settings = shown["NetworkSettings"]
    assert settings["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "53/udp": None}
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] == "10.0.0.2"
    assert shown["Mounts"][0]["RW"] is False
    assert shown["ImageManifestDescriptor"]["platform"] == {"architecture": "amd64", "os": "linux"}
    assert "ImageManifestDescriptor" not in containers.inspect(_container(), (1, 47))
    msgspec.json.encode(shown)


def test_the_networks_of_a_container_that_never_ran() -> None:
    created = _container(endpoints=[], state=State(), host=HostConfig(network_mode="default"))
    assert list(containers.inspect(created, (1, 51))["NetworkSettings"]["Networks"]) == ["bridge"]
    other = _container(endpoints=[], host=HostConfig(network_mode="container:x"))
    assert containers.inspect(other, (1, 51))["NetworkSettings"]["Networks"] == {}


def test_create_request() -> None:
    body = {
        "Image": "bb:1",
        "Cmd": "one",
        "Env": ["A=b"],
        "Unknown": {"x": 1},
        "HostConfig": {
            "RestartPolicy": {"Name": ""},
            "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
            "AutoRemove": True,
        },
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["a"]}}},
    }
    request = containers.create_request(body, "n", "linux/amd64")
    assert request.config.cmd == ["one"]
    assert request.host.restart_policy.name == "no"
    assert request.host.port_bindings == {"80/tcp": [PortBinding(host_port="80")]}
    assert request.networks["net"].aliases == ["a"]
    assert (request.name, request.platform) == ("n", "linux/amd64")
    assert containers.create_request({"Image": "x"}, "", "").host == HostConfig()


@pytest.mark.parametrize(
    "body",
    [
        {"Image": 5},
        {"Env": "A=b"},
        {"Labels": {"a": 1}},
        {"HostConfig": {"Memory": "much"}},
        {"HostConfig": {"Binds": [1]}},
        {"HostConfig": {"ConsoleSize": [1]}},
        {"HostConfig": 7},
        {"NetworkingConfig": {"EndpointsConfig": []}},
        {"NetworkingConfig": 7},
        {"Healthcheck": []},
        {"Tty": "yes"},
    ],
)
def test_a_wrong_create_request_is_named(body: dict[str, object]) -> None:
    with pytest.raises(Invalid, match=r"^invalid "):
        containers.create_request(body, "", "")


def _image(names: list[str], **changes: object) -> ImageRecord:
    image = ImageRecord(
        id="sha256:" + "1" * 64,
        manifest="sha256:" + "2" * 64,
        manifest_size=300,
        names=names,
        config_raw=b'{"architecture":"arm64","os":"linux","config":{"Cmd":["sh"],"Future":1},"rootfs":{"diff_ids":["d"]},'
        b'"history":[{"comment":"c"}],"author":"me"}',
        created="2026-11-23T05:41:22Z",
        size=1000,
        platform="linux/arm64/v8",
        labels={"a": "b"},
    )
    return msgspec.structs.replace(image, **changes)


def test_image_names() -> None:
    names = ["docker.io/library/bb:1", "docker.io/library/bb:2", "127.0.0.1:5000/x/bb:1"]
    digest = "sha256:" + "2" * 64
    of_names = [f"docker.io/library/bb@{digest}", f"127.0.0.1:5000/x/bb@{digest}"]
    assert images.tags_and_digests(msgspec.structs.replace(_image(names), digests=of_names)) == (
        ["bb:1", "bb:2", "127.0.0.1:5000/x/bb:1"],
        [f"bb@{digest}", f"127.0.0.1:5000/x/bb@{digest}"],
    )
    assert images.tags_and_digests(_image([])) == ([], [])


def test_image_summary_by_version() -> None:
    new, old = images.summary(_image(["docker.io/library/bb:1"]), (1, 51)), images.summary(_image([]), (1, 41))
    assert new["RepoTags"] == ["bb:1"]
    assert new["Created"] == 1795412482
    assert "VirtualSize" not in new
    assert old["RepoTags"] == ["<none>:<none>"]
    assert old["VirtualSize"] == 1000


def test_image_inspect_by_version() -> None:
    new, old = images.inspect(_image([]), (1, 51)), images.inspect(_image([]), (1, 41))
    assert (new["Architecture"], new["Variant"], new["Os"]) == ("arm64", "v8", "linux")
    assert new["Config"] == {"Cmd": ["sh"], "Future": 1}
    assert old["Config"]["Env"] is None
    assert old["Config"]["Cmd"] == ["sh"]
    assert old["Container"] == ""
    assert new["RootFS"] == {"Type": "layers", "Layers": ["d"]}
    assert (new["Comment"], new["Author"]) == ("c", "me")


def test_removed_images() -> None:
    steps = [RemovedImage(untagged="bb:1"), RemovedImage(deleted="sha256:1")]
    assert images.removed(steps) == [{"Untagged": "bb:1"}, {"Deleted": "sha256:1"}]


def test_stats_have_both_samples() -> None:
    before = {"read": "t0", "cpu_ns": 100, "system_ns": 1000, "cpus": 2}
    after = {"read": "t1", "cpu_ns": 200, "system_ns": 2000, "cpus": 2, "memory": 5, "memory_limit": 10, "pids": 1}
    shown = stats.stats(ID, "n", after, before)
    assert (shown["read"], shown["preread"], shown["name"]) == ("t1", "t0", "/n")
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] - shown["precpu_stats"]["cpu_usage"]["total_usage"] == 100
    assert shown["memory_stats"]["usage"] == 5
    assert shown["cpu_stats"]["online_cpus"] == 2
    empty = stats.stats(ID, "n", {}, None)
    assert empty["preread"] == "0001-01-01T00:00:00Z"
    assert "system_cpu_usage" not in empty["cpu_stats"]
