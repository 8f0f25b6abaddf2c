"""What the engine answers, as types (Docker Engine API 1.51).

Fields it does not send have defaults, unknown ones are dropped. Times are RFC 3339 text as sent, sizes are bytes.
`raw` of an object keeps the whole document.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

__all__ = [
    "Change",
    "ContainerConfig",
    "ContainerDetails",
    "ContainerState",
    "Event",
    "EventActor",
    "Health",
    "HealthResult",
    "ExecCommand",
    "ExecDetails",
    "ExecResult",
    "ImageDetails",
    "ImageLayer",
    "Info",
    "MountPoint",
    "NetworkAddresses",
    "NetworkDetails",
    "NetworkMember",
    "NetworkSubnet",
    "Output",
    "PathStat",
    "ProcessTable",
    "Progress",
    "PruneResult",
    "RunResult",
    "Version",
    "VolumeDetails",
]


class Change(NamedTuple):
    """A path that differs from the image."""

    path: str
    kind: Literal["modified", "added", "deleted"]


CHANGE_KINDS: tuple[Literal["modified", "added", "deleted"], ...] = ("modified", "added", "deleted")


class ProcessTable(NamedTuple):
    """What `ps` would show: the titles of the columns, and one row a process."""

    titles: list[str]
    rows: list[list[str]]


class ExecCommand(msgspec.Struct, kw_only=True):
    """What an exec runs; without a name for who started it under an earlier engine."""

    entrypoint: str = ""
    arguments: list[str] = []
    user: str = ""
    tty: bool = False
    privileged: bool = False


class ExecDetails(msgspec.Struct, rename="pascal", kw_only=True):
    """An additional process in a container; `exit_code` is None until it has ended."""

    id: str = msgspec.field(name="ID")
    running: bool
    exit_code: int | None = None
    pid: int = 0
    command: ExecCommand = msgspec.field(name="ProcessConfig")


class FoundRepository(msgspec.Struct, kw_only=True):
    """A repository that a search found; all but the name only where the registry says it."""

    name: str
    description: str = ""
    stars: int = msgspec.field(default=0, name="star_count")
    official: bool = msgspec.field(default=False, name="is_official")


class PathStat(msgspec.Struct, rename="camel", kw_only=True):
    """A file in a container; `mode` has Go's bits (1 << 31 a directory, 1 << 27 a link) and the permissions."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = ""


class Output(NamedTuple):
    """A piece of what a process wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class RunResult(NamedTuple):
    """How a container ended and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class ExecResult(NamedTuple):
    """How an exec ended and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Progress(NamedTuple):
    """A step of a pull, push or load; `current` and `total` are bytes, 0 when there are none."""

    status: str
    id: str
    current: int
    total: int


class PruneResult(NamedTuple):
    """What a prune removed, and the bytes it gave back."""

    removed: list[str]
    reclaimed_bytes: int


class Record(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """Docker's spelling of names on the wire."""


class HealthResult(Record, kw_only=True, frozen=True):
    """One run of a healthcheck; exit code 0 is healthy, -1 is a probe that took too long or could not be run."""

    start: str = ""
    end: str = ""
    exit_code: int = 0
    output: str = ""


class Health(Record, kw_only=True, frozen=True):
    """`starting`, `healthy` or `unhealthy`, and the last results, oldest first."""

    status: str = ""
    failing_streak: int = 0
    log: list[HealthResult] | None = None


class ContainerState(Record, kw_only=True, frozen=True):
    """`State` of a container; status is created, running, paused, restarting, exited or dead."""

    status: str
    running: bool = False
    paused: bool = False
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    restarting: bool = False
    health: Health | None = None


class ContainerConfig(Record, kw_only=True, frozen=True):
    """What a container was asked to run."""

    hostname: str = ""
    user: str = ""
    tty: bool = False
    open_stdin: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str = ""
    image: str = ""
    labels: dict[str, str] | None = None
    exposed_ports: dict[str, Any] | None = None


class MountPoint(Record, kw_only=True, frozen=True):
    """A bind, volume or tmpfs of a container."""

    type: str
    name: str = ""
    source: str = ""
    destination: str = ""
    mode: str = ""
    read_write: bool = msgspec.field(name="RW", default=True)


class PublishedPort(Record, kw_only=True, frozen=True):
    """Where a container's port is published."""

    host_ip: str = ""
    host_port: str = ""


class EndpointDetails(Record, kw_only=True, frozen=True):
    """A container's place in one network."""

    network_id: str = msgspec.field(name="NetworkID", default="")
    ip_address: str = msgspec.field(name="IPAddress", default="")
    ip_prefix: int = msgspec.field(name="IPPrefixLen", default=0)
    gateway: str = ""
    ipv6_address: str = msgspec.field(name="GlobalIPv6Address", default="")
    ipv6_gateway: str = msgspec.field(name="IPv6Gateway", default="")
    mac_address: str = ""
    aliases: list[str] | None = None
    dns_names: list[str] | None = msgspec.field(name="DNSNames", default=None)


class NetworkSettings(Record, kw_only=True, frozen=True):
    """A container's ports and networks."""

    ports: dict[str, list[PublishedPort] | None] | None = None
    networks: dict[str, EndpointDetails] | None = None


class ContainerDetails(Record, kw_only=True, frozen=True):
    """A container as `inspect` shows it."""

    id: str
    name: str
    created: str = ""
    path: str = ""
    args: list[str] | None = None
    image: str = ""
    restart_count: int = 0
    state: ContainerState
    config: ContainerConfig
    network_settings: NetworkSettings = msgspec.field(default_factory=NetworkSettings)
    mounts: list[MountPoint] | None = None


class ListedContainer(Record, kw_only=True, frozen=True):
    """One entry of a list of containers."""

    id: str
    names: list[str]


class ImageRunConfig(Record, kw_only=True, frozen=True):
    """What an image says about how to run it."""

    user: str = ""
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    exposed_ports: dict[str, Any] | None = None


class ImageDetails(Record, kw_only=True, frozen=True):
    """An image as `inspect` shows it; `id` is the digest of its config."""

    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    created: str | None = None
    author: str = ""
    architecture: str = ""
    os: str = ""
    size: int = 0
    config: ImageRunConfig | None = None


class ListedImage(Record, kw_only=True, frozen=True):
    """One entry of a list of images."""

    id: str


class ImageLayer(Record, kw_only=True, frozen=True):
    """One entry of an image's history."""

    id: str
    created: int = 0
    created_by: str = ""
    size: int = 0
    comment: str = ""
    tags: list[str] | None = None


class NetworkSubnet(Record, kw_only=True, frozen=True):
    """One subnet of a network, in CIDR notation."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")


class NetworkAddresses(Record, kw_only=True, frozen=True):
    """The subnets of a network."""

    config: list[NetworkSubnet] | None = None


class NetworkMember(Record, kw_only=True, frozen=True):
    """A container in a network; addresses have their prefix behind a slash."""

    name: str = ""
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    mac_address: str = ""


class NetworkDetails(Record, kw_only=True, frozen=True):
    """A network; `containers` by id, only as `get` answers."""

    id: str
    name: str
    created: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    ipam: NetworkAddresses = msgspec.field(name="IPAM", default_factory=NetworkAddresses)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    containers: dict[str, NetworkMember] | None = None


class VolumeDetails(Record, kw_only=True, frozen=True):
    """A volume; `status` has the `Owner` of an anonymous one: what it was made for."""

    name: str
    driver: str = ""
    mountpoint: str = ""
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    status: dict[str, Any] | None = None


class EventActor(Record, kw_only=True, frozen=True):
    """What an event happened to."""

    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] = {}


class Event(Record, kw_only=True, frozen=True):
    """Something that happened in the engine; `time_ns` counts from 1970."""

    type: str
    action: str
    actor: EventActor = EventActor()
    time_ns: int = msgspec.field(name="timeNano", default=0)


class Version(Record, kw_only=True, frozen=True):
    """Versions of the engine."""

    version: str
    api_version: str
    min_api_version: str = msgspec.field(name="MinAPIVersion", default="")
    os: str = ""
    arch: str = ""
    kernel_version: str = ""


class Info(Record, kw_only=True, frozen=True):
    """Facts about the engine and its machine."""

    id: str = msgspec.field(name="ID", default="")
    name: str = ""
    server_version: str = ""
    driver: str = ""
    docker_root_dir: str = ""
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    cgroup_version: str = ""
    kernel_version: str = ""
    operating_system: str = ""
    cpus: int = msgspec.field(name="NCPU", default=0)
    memory_bytes: int = msgspec.field(name="MemTotal", default=0)
    security_options: list[str] | None = None
    warnings: list[str] | None = None


class Problem(msgspec.Struct, kw_only=True, frozen=True):
    """One thing that `check` found: of a record, the index, a blob, an image or a layer.

    affected: images and containers that need it; repaired: what was done, empty when it is still so.
    """

    kind: str
    subject: str
    detail: str
    affected: list[str] = []
    repaired: str = ""
    hint: str = ""


class Share(Record, kw_only=True, frozen=True):
    """One part of what is stored: how many objects, how many in use, bytes on disk, bytes that pruning would free."""

    total_count: int = 0
    active: int = 0
    size: int = 0
    reclaimable: int = 0


class DiskUsage(Record, kw_only=True, frozen=True):
    """Bytes that the data root occupies on its disk; `engine` is what belongs to nothing else."""

    images: Share
    containers: Share
    volumes: Share
    engine: Share
    total: int
    by_volume: dict[str, int] = {}


class ArtifactFile(Record, kw_only=True, frozen=True):
    """One file of an artifact."""

    title: str
    digest: str
    size: int
    media_type: str = ""


class ArtifactDetails(Record, kw_only=True, frozen=True):
    """An OCI artifact: its files, and their bytes in all."""

    name: str
    digest: str
    type: str = ""
    size: int = 0
    annotations: dict[str, str] = {}
    files: list[ArtifactFile] = []
