"""What scopes permit, and what containers may have that are made through them."""

from __future__ import annotations

import pytest

from proa.api.operations import ROUTES
from proa.api.routes import Route
from proa.api.sockets.audit import AuditLog
from proa.api.sockets.doors import Door, Peer
from proa.api.sockets.powers import denied_power, named_containers, named_networks, named_volumes
from proa.api.sockets.scopes import AREAS, Scope, area_of, changes
from proa.api.translate.containers import create_request
from proa.errors import Invalid

BY_NAME = {(route.method, route.template): route for route in ROUTES}


def route(method: str, template: str) -> Route:
    return BY_NAME[method, template]


def test_read_only_permits_nothing_that_changes() -> None:
    scope = Scope(read_only=True)
    permitted = [r for r in ROUTES if scope.permits(r)]
    assert {r.method for r in permitted} == {"GET", "HEAD"}
    assert route("GET", "/containers/json") in permitted
    assert route("GET", "/containers/{id}/archive") not in permitted
    assert route("GET", "/proa/v1/sockets") not in permitted
    every = Scope(read_only=True, allow=AREAS)
    assert not [r for r in ROUTES if every.permits(r) and changes(r)]
    assert every.permits(route("GET", "/containers/{id}/archive"))


def test_no_scope_reaches_the_host_side_of_the_engine() -> None:
    scope = Scope(allow=AREAS)
    for method, template in (
        ("POST", "/proa/v1/stop"),
        ("POST", "/proa/v1/sockets"),
        ("DELETE", "/proa/v1/sockets"),
        ("POST", "/proa/v1/check"),
        ("POST", "/proa/v1/networks/reload"),
        ("POST", "/proa/v1/images/{name:path}/mount"),
        ("DELETE", "/proa/v1/image-mounts"),
    ):
        assert not scope.permits(route(method, template)), template
    assert area_of("/something/new") == ""
    assert not scope.permits(Route("GET", "/something/new", ROUTES[0].operation))


def test_every_docker_route_has_an_area() -> None:
    swarm = ("swarm", "nodes", "services", "tasks", "plugins")
    for found in ROUTES:
        head = found.template.split("/")[1]
        if head not in ("proa", *swarm) and found.template not in ("/_ping", "/version"):
            assert area_of(found.template) in AREAS, found.template


def test_a_websocket_attach_is_no_look() -> None:
    attach = Route("GET", "/containers/{id}/attach/ws", ROUTES[0].operation)
    assert not Scope(read_only=True).permits(attach)
    assert Scope(allow=("containers",)).permits(attach)


def test_allow_names_its_areas_alone() -> None:
    scope = Scope(allow=("containers", "exec"))
    assert scope.permits(route("POST", "/containers/create"))
    assert scope.permits(route("POST", "/containers/{id}/exec"))
    assert scope.permits(route("POST", "/exec/{id}/start"))
    assert not Scope(allow=("containers",)).permits(route("POST", "/containers/{id}/exec"))
    assert not scope.permits(route("PUT", "/containers/{id}/archive"))
    assert not scope.permits(route("GET", "/images/json"))
    assert not scope.permits(route("GET", "/info"))
    assert scope.permits(route("HEAD", "/_ping"))


@pytest.mark.parametrize(
    "scope",
    [Scope(), Scope(allow=("nothing",)), Scope(labels={"": "x"}), Scope(labels={str(n): "x" for n in range(17)})],
)
def test_scopes_that_are_none(scope: Scope) -> None:
    with pytest.raises(Invalid):
        scope.check()


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"Binds": ["/:/host"]},
        {"Binds": ["/etc/shadow:/x:ro"]},
        {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
        {"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"o": "bind"}}}}]},
        {"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}]},
        {"NetworkMode": "host"},
        {"NetworkMode": "ns:/proc/1/ns/net"},
        {"PidMode": "host"},
        {"IpcMode": "host"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"CgroupnsMode": "host"},
        {"CgroupParent": "/"},
        {"CapAdd": ["SYS_ADMIN"]},
        {"CapAdd": ["ALL"]},
        {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]},
        {"DeviceCgroupRules": ["a *:* rwm"]},
        {"DeviceRequests": [{"Driver": "nvidia"}]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"SecurityOpt": ["no-new-privileges", "systempaths=unconfined"]},
        {"MaskedPaths": []},
        {"ReadonlyPaths": []},
        {"Runtime": "runc"},
        {"OomScoreAdj": -1000},
        {"OomKillDisable": True},
        {"Annotations": {"a": "b"}},
        {"VolumeDriver": "nfs"},
        {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "tcp://10.0.0.1"}}},
        {"LogConfig": {"Type": "", "Config": {"syslog-address": "tcp://10.0.0.1"}}},
        {"CpuRealtimeRuntime": 1000},
        {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}]},
    ],
)
def test_what_reaches_the_host_is_found(host: dict[str, object]) -> None:
    assert denied_power(create_request({"Image": "x", "HostConfig": host}, "", "").host)


def test_what_concerns_the_container_alone_is_let_through() -> None:
    host = create_request(
        {
            "Image": "x",
            "HostConfig": {
                "Binds": ["data:/data:ro", "/anonymous"],
                "Mounts": [{"Type": "volume", "Source": "more", "Target": "/m"}, {"Type": "tmpfs", "Target": "/t"}],
                "VolumesFrom": ["other:ro"],
                "NetworkMode": "container:net",
                "PidMode": "container:pid",
                "Links": ["db:alias"],
                "SecurityOpt": ["no-new-privileges:true"],
                "Memory": 1 << 20,
                "PortBindings": {"80/tcp": [{"HostPort": "0"}]},
                "RestartPolicy": {"Name": "always"},
                "MaskedPaths": None,
                "Devices": [],
                "Privileged": False,
            },
        },
        "",
        "",
    ).host
    assert denied_power(host) == ""
    assert named_volumes(host) == ["data", "more"]
    assert named_containers(host) == ["net", "pid", "other", "db"]
    assert named_networks(host, {"lan": None, "bridge": None}) == ["lan"]


def test_the_audit_log_stays_small(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    log = AuditLog(tmp_path / "audit.log", limit=4096)
    door = Door("scoped", "/run/ci.sock", Scope(read_only=True))
    for n in range(200):
        log.refused(door, Peer(1, 2, 3), "POST", f"/{n}" + "x" * 9999, "no")
    sizes = [p.stat().st_size for p in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 12000
