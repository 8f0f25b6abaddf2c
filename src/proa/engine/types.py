"""What the engine is asked for and what it keeps: typed records under Docker's wire names.

Records are stored as the JSON these structs make, so what `inspect` shows is what was asked, field by field.
Sizes are bytes, durations nanoseconds, times RFC 3339 strings in UTC with nanoseconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from proa.oci import Healthcheck

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, which clients take for "not yet"


class PortBinding(msgspec.Struct, rename="pascal", kw_only=True):
    """One host address a container port is published at; an empty port means: choose one."""

    host_ip: str = msgspec.field(default="", name="HostIp")
    host_port: str = ""


class RestartPolicy(msgspec.Struct, rename="pascal", kw_only=True):
    """When to start again: no, always, on-failure, unless-stopped."""

    name: str = "no"
    maximum_retry_count: int = 0


class LogConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """Log driver, empty for the engine's default, and its options."""

    type: str = ""
    config: dict[str, str] = {}


class MountRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """One `--mount`."""

    type: str = "bind"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: dict[str, Any] | None = None
    volume_options: dict[str, Any] | None = None
    tmpfs_options: dict[str, Any] | None = None
    image_options: dict[str, Any] | None = None


class DeviceMapping(msgspec.Struct, rename="pascal", kw_only=True):
    """One `--device`."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class Ulimit(msgspec.Struct, rename="pascal", kw_only=True):
    """One `--ulimit`."""

    name: str
    soft: int
    hard: int


class WeightDevice(msgspec.Struct, rename="pascal", kw_only=True):
    """One `--blkio-weight-device`."""

    path: str
    weight: int


class ThrottleDevice(msgspec.Struct, rename="pascal", kw_only=True):
    """One `--device-read-bps` or its like: bytes, or operations, per second."""

    path: str
    rate: int


class ContainerConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """The portable half of a create request (Docker's Config), after merging the image's defaults in a record."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class SecretRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """A secret or config for a container: a file at `target`, or the variable `environment`."""

    kind: Literal["secret", "config"] = "secret"
    source: str
    target: str = ""
    environment: str = ""
    uid: int = msgspec.field(default=0, name="UID")
    gid: int = msgspec.field(default=0, name="GID")
    mode: int | None = None


class HostConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """The host's half of a create request (Docker's HostConfig)."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    secrets: list[SecretRequest] | None = None
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    device_requests: list[dict[str, Any]] | None = None
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    mounts: list[MountRequest] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class UpdateRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """What to change in a container's HostConfig; zero, None and empty text leave the member as it is."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    blkio_weight: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation: int = 0
    memory_swap: int = 0
    pids_limit: int | None = None
    restart_policy: RestartPolicy | None = None


class EndpointRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """How to join one network."""

    aliases: list[str] | None = None
    links: list[str] | None = None
    mac_address: str = ""
    ipam_config: dict[str, Any] | None = msgspec.field(default=None, name="IPAMConfig")
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class CreateRequest(msgspec.Struct, kw_only=True):
    """Everything `create` takes; volumes that are made for the container get `volume_labels`."""

    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointRequest] = {}
    name: str = ""
    platform: str = ""
    volume_labels: dict[str, str] = {}


class CreateResult(msgspec.Struct, kw_only=True):
    """The new container's id, and what the user should know."""

    id: str
    warnings: list[str] = []


class EndpointSettings(msgspec.Struct, kw_only=True):
    """One container's place on one network; empty texts while it does not run."""

    network: str
    network_id: str = ""
    endpoint_id: str = ""
    interface: str = ""
    gateway: str = ""
    address: str = ""
    prefix: int = 0
    gateway6: str = ""
    address6: str = ""
    prefix6: int = 0
    mac: str = ""
    aliases: list[str] = []
    dns_names: list[str] = []


class ProbeResult(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """One run of a healthcheck: exit code 0 is healthy, -1 is a probe that could not be run or took too long."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(msgspec.Struct, rename="pascal", kw_only=True):
    """What a container's healthcheck found: starting, healthy or unhealthy, and the last results, oldest first."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[ProbeResult] = []


class State(msgspec.Struct, kw_only=True):
    """Where a container is in its life. Written by the engine, derived from the monitor's records."""

    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER
    restart_count: int = 0
    manually_stopped: bool = False
    health: Health | None = None

    @property
    def running(self) -> bool:
        """True while the process exists, paused or not."""
        return self.status in ("running", "paused")

    @property
    def active(self) -> bool:
        """True while it runs or waits for its restart: what Docker calls running."""
        return self.running or self.status == "restarting"


class MountPoint(msgspec.Struct, kw_only=True):
    """A resolved mount of a container, as `inspect` lists it.

    name, source: of a volume its name and directory, of an image its name and chain ID.
    subpath: what of it is mounted. nocopy: do not fill it from the image. chown: give it to the container's user.
    recursive: with the mounts below; recursive_ro: those read-only, too, where it is.
    """

    type: str
    source: str
    destination: str
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    name: str = ""
    driver: str = ""
    subpath: str = ""
    nocopy: bool = False
    chown: bool = False
    recursive: bool = True
    recursive_ro: bool = True


class IdMaps(msgspec.Struct, kw_only=True):
    """The maps of a container's user namespace: (id inside, id outside, count)."""

    uids: list[tuple[int, int, int]]
    gids: list[tuple[int, int, int]]


class Container(msgspec.Struct, kw_only=True):
    """A container's record: what was asked, what it was resolved to, and its state."""

    id: str
    name: str
    created: str
    image_id: str
    image_name: str
    manifest: str
    chain_id: str
    platform: str
    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointRequest] = {}
    mounts: list[MountPoint] = []
    endpoints: list[EndpointSettings] = []
    ports: dict[str, list[PortBinding]] = {}
    state: State = msgspec.field(default_factory=State)
    path: str = ""
    args: list[str] = []
    labels: dict[str, str] = {}
    directory: str = ""
    id_maps: IdMaps | None = None
    resolv_conf: str = ""  # digest of the file as it was written, by which a change inside is known


class ExitStatus(msgspec.Struct, kw_only=True):
    """How a wait ended."""

    status_code: int
    error: str = ""


class ExecRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """What to run in a running container."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    end_with_client: bool = False


class Exec(msgspec.Struct, kw_only=True):
    """An additional process in a running container."""

    id: str
    container: str
    request: ExecRequest
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


class PathStat(msgspec.Struct, kw_only=True):
    """A file in a container: `mode` as st_mode has it, and where a link leads in the end."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


class LogRequest(msgspec.Struct, kw_only=True):
    """Which part of a log; `tail` -1 is all; since/until are nanoseconds since the epoch, 0 for none."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    tail: int = -1
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    details: bool = False


class LogEntry(msgspec.Struct, kw_only=True):
    """One log record: `stream` 1 is stdout, 2 stderr; the labels and variables that were asked for beside it."""

    stream: int
    time: str
    data: bytes
    attributes: dict[str, str] = {}


class ImageRecord(msgspec.Struct, kw_only=True):
    """One image as the store has it: all its names, and the parsed views of its documents.

    digests: `registry/repository@digest` for every name: of the index that it was chosen from, else of the manifest
    parent: the ID of the image it was committed from; tagged: when it last got a name, seconds since the epoch
    """

    id: str
    manifest: str
    manifest_size: int
    names: list[str]
    digests: list[str] = []
    config_raw: bytes
    created: str
    size: int
    platform: str
    labels: dict[str, str]
    containers: int = 0
    layers: list[str] = []
    parent: str = ""
    tagged: float = 0.0


class RemovedImage(msgspec.Struct, kw_only=True):
    """One step of an image removal: exactly one of the two is set."""

    untagged: str = ""
    deleted: str = ""


class Event(msgspec.Struct, kw_only=True):
    """Something that happened; time in nanoseconds since the epoch."""

    type: str
    action: str
    id: str
    attributes: dict[str, str]
    time_nano: int


class PlatformChange(msgspec.Struct, kw_only=True):
    """What `manifest annotate` sets of an entry's platform; empty members are left as they are."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
