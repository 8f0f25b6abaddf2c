from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.engine.mounts import VolumeWish, clean_target, parse_bind, resolve_mount, resolve_mounts
from proa.engine.types import ContainerConfig, HostConfig, MountPoint, MountRequest
from proa.errors import Invalid, ProaError, Unsupported


class Known:
    """Sources that know everything they are asked for, and remember it."""

    def __init__(self) -> None:
        self.wishes: list[VolumeWish] = []

    def volume(self, wish: VolumeWish) -> tuple[str, str]:
        self.wishes.append(wish)
        return wish.name or "anonymous", f"/volumes/{wish.name or 'anonymous'}"

    def image(self, name: str) -> str:
        return f"chain of {name}"

    def mounts_of(self, container: str) -> list[MountPoint]:
        return [
            MountPoint(type="bind", source="/host", destination="/bound"),
            MountPoint(type="volume", source="/volumes/theirs", name="theirs", destination="/data"),
            MountPoint(type="tmpfs", source="", destination="/tmp"),
        ]


volume = Known()


def bind(text: str) -> MountPoint:
    return parse_bind(text, volume)


def test_binds(tmp_path: Path) -> None:
    point = bind(f"{tmp_path}:/data")
    assert (point.type, point.source, point.destination, point.rw) == ("bind", str(tmp_path), "/data", True)
    assert point.propagation == "rprivate"
    point = bind(f"{tmp_path}/./x/..:/data/../other/:ro,rslave,z")
    assert (point.source, point.destination, point.rw) == (str(tmp_path), "/other", False)
    assert (point.propagation, point.mode) == ("rslave", "ro,rslave,z")
    assert bind(f"{tmp_path}:/d:readonly").rw is False
    assert bind(f"{tmp_path}:/d:rw").rw is True
    assert bind(f"{tmp_path}:/d:").rw is True


def test_a_missing_source_is_made_as_docker_does(tmp_path: Path) -> None:
    assert bind(f"{tmp_path}/a/b:/data").source == f"{tmp_path}/a/b"
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "dangling").symlink_to("nowhere")
    bind(f"{tmp_path}/dangling:/data")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("x")
    for source in (f"{tmp_path}/file/below", f"{tmp_path}/a\0b", "/proc/nothing/here"):
        with pytest.raises(Invalid, match="error while creating mount source path"):
            bind(f"{source}:/data")


def test_volumes() -> None:
    point = bind("cache:/var/cache:ro")
    assert (point.type, point.name, point.source, point.rw) == ("volume", "cache", "/volumes/cache", False)
    point = bind("/var/lib/data")
    assert (point.type, point.name, point.destination) == ("volume", "anonymous", "/var/lib/data")


@pytest.mark.parametrize(
    "text",
    ["", ":", "/a:", ":/a", "/a:/b:ro:x", "/a:/b:wat", "/a:/b:ro,rw", "/a:/b:shared,private", "/a:relative", "/a:/",
     "/a:/.", "/a:/b/..", "/a://", "/a:/b\n", "/a:/b\0", "/a:/b:ro\n", "relative", "/a:/proc", "/a:/proc/sys",
     "/a:/x/../proc", "/a://proc", "/a:/sys/fs/cgroup", "/a:/sys/", "a:/sys"],
)  # fmt: skip
def test_what_is_no_bind(text: str) -> None:
    with pytest.raises(Invalid):
        bind(text)


def test_names_that_only_look_forbidden() -> None:
    assert clean_target("/process") == "/process"
    assert clean_target("/data/proc/") == "/data/proc"
    assert clean_target("//data///x") == "/data/x"


@given(st.text(alphabet="/.aprocsy \0\n", max_size=24))
def test_a_target_is_clean_or_refused(text: str) -> None:
    try:
        cleaned = clean_target(text)
    except Invalid:
        return
    assert cleaned.startswith("/")
    assert cleaned != "/"
    assert not {"", ".", ".."} & set(cleaned[1:].split("/"))
    assert cleaned.split("/")[1] not in ("proc", "sys")
    assert clean_target(cleaned) == cleaned


def request(**fields: Any) -> MountRequest:
    return MountRequest(**{"target": "/data", **fields})


def test_mount_requests(tmp_path: Path) -> None:
    point = resolve_mount(request(source=str(tmp_path), read_only=True, bind_options={"Propagation": "shared"}), volume)
    assert (point.type, point.source, point.rw, point.propagation) == ("bind", str(tmp_path), False, "shared")
    new = tmp_path / "new"
    with pytest.raises(Invalid, match="bind source path does not exist"):
        resolve_mount(request(source=str(new)), volume)
    resolve_mount(request(source=str(new), bind_options={"CreateMountpoint": True}), volume)
    assert new.is_dir()
    point = resolve_mount(request(type="volume", source="named", read_only=True), volume)
    assert (point.type, point.name, point.rw) == ("volume", "named", False)
    assert resolve_mount(request(type="volume"), volume).name == "anonymous"
    point = resolve_mount(request(type="tmpfs", tmpfs_options={"SizeBytes": 4096, "Mode": 0o1777}), volume)
    assert (point.type, point.mode) == ("tmpfs", "size=4096,mode=1777")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"source": "relative"}, Invalid),
        ({"source": ""}, Invalid),
        ({"source": "/etc", "target": "/proc/x"}, Invalid),
        ({"source": "/etc", "target": ""}, Invalid),
        ({"source": "/etc", "bind_options": {"Propagation": "sideways"}}, Invalid),
        ({"type": "npipe"}, Unsupported),
        ({"type": "cluster"}, Unsupported),
        ({"type": "tmpfs", "tmpfs_options": {"SizeBytes": "much"}}, Invalid),
        ({"type": "tmpfs", "tmpfs_options": {"Mode": -1}}, Invalid),
    ],
)
def test_requests_that_are_refused(fields: dict[str, Any], kind: type[ProaError]) -> None:
    with pytest.raises(kind):
        resolve_mount(request(**fields), volume)


def test_all_of_a_container(tmp_path: Path) -> None:
    host = HostConfig(
        binds=[f"{tmp_path}:/data/deep/x"], mounts=[request(source=str(tmp_path))], tmpfs={"/run/": "size=1m"}
    )
    config = ContainerConfig(volumes={"/config": {}, "/data/": {}, "/image": {}, "/run": {}})
    points = resolve_mounts(config, host, volume)
    # Shallow ones first, so that none hides another; a volume gives way to what was asked for at its place.
    assert [p.destination for p in points] == ["/config", "/data", "/image", "/run", "/data/deep/x"]
    assert [p.type for p in points] == ["volume", "bind", "volume", "tmpfs", "bind"]
    assert points[3].mode == "size=1m"


def test_one_place_is_used_once(tmp_path: Path) -> None:
    for host in (
        HostConfig(binds=[f"{tmp_path}:/d", f"{tmp_path}:/x/../d"]),
        HostConfig(binds=[f"{tmp_path}:/d"], mounts=[request(source=str(tmp_path), target="/d/")]),
        HostConfig(binds=[f"{tmp_path}:/d"], tmpfs={"/d": ""}),
    ):
        with pytest.raises(Invalid, match="Duplicate mount point: /d"):
            resolve_mounts(ContainerConfig(), host, volume)


def test_options_of_volumes() -> None:
    sources = Known()
    options = {
        "Labels": {"a": "b"},
        "NoCopy": True,
        "Subpath": "x/./y",
        "DriverConfig": {"Name": "local", "Options": {"size": "1m"}},
    }
    point = resolve_mount(request(type="volume", source="named", volume_options=options), sources)
    assert (point.subpath, point.nocopy) == ("x/y", True)
    wish = sources.wishes[0]
    assert (wish.name, wish.driver, wish.options, wish.labels) == ("named", "local", {"size": "1m"}, {"a": "b"})
    assert bind("named:/data:nocopy,U").nocopy
    assert bind("named:/data:U,ro").chown
    for path in ("/etc", "../etc", "a/../../b", "a\0b", "x" * 5000):
        with pytest.raises(Invalid, match="subpath must be a relative path"):
            resolve_mount(request(type="volume", source="named", volume_options={"Subpath": path}), sources)
    with pytest.raises(Invalid, match="invalid mode: nocopy"):
        bind("/etc:/data:nocopy")


def test_images_are_read_only() -> None:
    options = {"Subpath": "usr"}
    point = resolve_mount(request(type="image", source="busybox", image_options=options), volume)
    assert (point.type, point.name, point.source) == ("image", "busybox", "chain of busybox")
    assert (point.rw, point.subpath) == (False, "usr")
    with pytest.raises(Invalid, match="Source must not be empty"):
        resolve_mount(request(type="image"), volume)


def test_read_only_binds() -> None:
    def options(**fields: bool) -> MountPoint:
        return resolve_mount(request(source="/etc", read_only=True, bind_options=fields), volume)

    assert options().recursive_ro
    assert not options(ReadOnlyNonRecursive=True).recursive_ro
    assert not options(NonRecursive=True).recursive
    with pytest.raises(Invalid, match="conflict"):
        options(ReadOnlyNonRecursive=True, ReadOnlyForceRecursive=True)
    with pytest.raises(Invalid, match="requires propagation"):
        resolve_mount(
            request(
                source="/etc", read_only=True, bind_options={"ReadOnlyForceRecursive": True, "Propagation": "rshared"}
            ),
            volume,
        )


def test_mounts_of_other_containers(tmp_path: Path) -> None:
    host = HostConfig(volumes_from=["other:ro"], binds=[f"{tmp_path}:/bound"])
    points = {
        point.destination: point for point in resolve_mounts(ContainerConfig(volumes={"/data": {}}), host, Known())
    }
    assert set(points) == {"/bound", "/data"}
    assert points["/bound"].source == str(tmp_path)
    assert (points["/data"].name, points["/data"].rw, points["/data"].nocopy) == ("theirs", False, True)
    with pytest.raises(Invalid, match="invalid mode"):
        resolve_mounts(ContainerConfig(), HostConfig(volumes_from=["other:wat"]), Known())
