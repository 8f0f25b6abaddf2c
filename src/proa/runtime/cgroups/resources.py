"""OCI `linux.resources` as checked types (runtime-spec config-linux.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from proa.errors import Invalid
from proa.runtime import defaults
from proa.runtime.cgroups.device_rules import DeviceRule, parse_rules

Limit = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Positive = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Memory(Struct, frozen=True, rename="camel"):
    """Bytes; -1 is unlimited; `swap` counts memory and swap together."""

    limit: Limit | None = None
    reservation: Limit | None = None
    swap: Limit | None = None
    swappiness: Annotated[int, Meta(ge=0, le=100)] | None = None
    disable_oom_killer: bool = msgspec.field(name="disableOOMKiller", default=False)
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(name="kernelTCP", default=None)


class Cpu(Struct, frozen=True, rename="camel"):
    """Times in microseconds."""

    shares: Positive | None = None
    quota: Limit | None = None
    period: Positive | None = None
    burst: Positive | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: int | None = None
    realtime_runtime: Limit | None = None
    realtime_period: Positive | None = None


class Pids(Struct, frozen=True):
    """Count of tasks; 0 and -1 are unlimited."""

    limit: Limit


class ThrottleDevice(Struct, frozen=True):
    """Bytes or operations per second on one block device."""

    major: Positive
    minor: Positive
    rate: Positive


class WeightDevice(Struct, frozen=True, rename="camel"):
    """The weight of one block device, 10 to 1000."""

    major: Positive
    minor: Positive
    weight: Annotated[int, Meta(ge=10, le=1000)]


class BlockIo(Struct, frozen=True, rename="camel"):
    """Block device bandwidth."""

    weight: Annotated[int, Meta(ge=0, le=1000)] | None = None
    weight_device: list[WeightDevice] = []
    throttle_read_bps_device: list[ThrottleDevice] = []
    throttle_write_bps_device: list[ThrottleDevice] = []
    throttle_read_iops_device: list[ThrottleDevice] = msgspec.field(name="throttleReadIOPSDevice", default_factory=list)
    throttle_write_iops_device: list[ThrottleDevice] = msgspec.field(
        name="throttleWriteIOPSDevice", default_factory=list
    )

    def throttles(self) -> list[tuple[str, str, ThrottleDevice]]:
        """(version 1 file, version 2 key, limit) of every throttle."""
        kinds = (
            ("read_bps", "rbps", self.throttle_read_bps_device),
            ("write_bps", "wbps", self.throttle_write_bps_device),
            ("read_iops", "riops", self.throttle_read_iops_device),
            ("write_iops", "wiops", self.throttle_write_iops_device),
        )
        return [(f"blkio.throttle.{name}_device", key, device) for name, key, devices in kinds for device in devices]


class NetworkPriority(Struct, frozen=True):
    """Priority of traffic on one interface (version 1)."""

    name: Annotated[str, Meta(pattern=r"^[^ /\n]{1,15}$")]
    priority: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]


class Network(Struct, frozen=True, rename="camel"):
    """Marks on network traffic (version 1)."""

    class_id: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | None = msgspec.field(name="classID", default=None)
    priorities: list[NetworkPriority] = []


class Rdma(Struct, frozen=True, rename="camel"):
    """Handles and objects of one RDMA device."""

    hca_handles: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] | None = None
    hca_objects: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] | None = None

    def line(self, device: str) -> str:
        """As rdma.max takes it."""
        pairs = (("hca_handle", self.hca_handles), ("hca_object", self.hca_objects))
        return " ".join([device, *(f"{key}={value}" for key, value in pairs if value is not None)])


class HugepageLimit(Struct, frozen=True, rename="camel"):
    """Bytes in huge pages of one size, such as `2MB`."""

    page_size: Annotated[str, Meta(pattern=r"^[0-9]{1,6}[KMG]B$")]
    limit: Positive


class Resources(Struct, frozen=True, rename="camel"):
    """Everything a cgroup can be told."""

    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: Pids | None = None
    block_io: BlockIo = msgspec.field(name="blockIO", default_factory=BlockIo)
    hugepage_limits: list[HugepageLimit] = []
    devices: list[dict[str, Any]] | None = None
    unified: dict[str, str] = {}
    network: Network = Network()
    rdma: dict[str, Rdma] = {}

    def device_rules(self) -> list[DeviceRule]:
        """The rules; without any, the default ones: no list must never mean no limits (GHSA-g54h-m393-cpwq)."""
        return parse_rules(self.devices or defaults.device_rules())


def parse_resources(resources: Mapping[str, Any] | None) -> Resources:
    """Check a decoded `linux.resources`. Raises Invalid."""
    try:
        parsed = msgspec.convert(resources or {}, Resources)
    except msgspec.ValidationError as error:
        raise Invalid(f"resources are not valid: {error}", code="invalid-config") from None
    for device in parsed.rdma:
        if not device or not device.isascii() or not device.isprintable() or " " in device or "/" in device:
            raise Invalid(f"`{device}` is not an RDMA device", code="invalid-config", subject=device)
    for key in parsed.unified:
        if "/" in key or not key:
            raise Invalid(f"`{key}` is not a cgroup file", code="invalid-config", subject=key)
    return parsed
