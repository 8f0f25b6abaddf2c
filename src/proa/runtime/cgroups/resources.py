"""OCI `linux.resources` as checked types (runtime-spec config-linux.md)."""

from __future__ import annotations

from proa.errors import Invalid
from proa.runtime import defaults
from proa.runtime.cgroups.device_rules import DeviceRule, parse_rules
from proa.runtime.shapes import (
    Mismatch,
    Shape,
    anything,
    boolean,
    convert,
    field,
    integer,
    listed,
    mapped,
    optional,
    shaped,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_LIMIT = integer(-1, (1 << 63) - 1)
_POSITIVE = integer(0, (1 << 63) - 1)
_TEXTS = listed(text)


class Memory(Shape):
    """Bytes; -1 is unlimited; `swap` counts memory and swap together."""

    limit: int | None = field(optional(_LIMIT), None)
    reservation: int | None = field(optional(_LIMIT), None)
    swap: int | None = field(optional(_LIMIT), None)
    swappiness: int | None = field(optional(integer(0, 100)), None)
    disable_oom_killer: bool = field(boolean, False, wire="disableOOMKiller")
    kernel: int | None = field(optional(integer()), None)
    kernel_tcp: int | None = field(optional(integer()), None, wire="kernelTCP")


class Cpu(Shape):
    """Times in microseconds."""

    shares: int | None = field(optional(_POSITIVE), None)
    quota: int | None = field(optional(_LIMIT), None)
    period: int | None = field(optional(_POSITIVE), None)
    burst: int | None = field(optional(_POSITIVE), None)
    cpus: str | None = field(optional(text), None)
    mems: str | None = field(optional(text), None)
    idle: int | None = field(optional(integer()), None)
    realtime_runtime: int | None = field(optional(_LIMIT), None)
    realtime_period: int | None = field(optional(_POSITIVE), None)


class Pids(Shape):
    """Count of tasks; 0 and -1 are unlimited."""

    limit: int = field(_LIMIT)


class ThrottleDevice(Shape):
    """Bytes or operations per second on one block device."""

    major: int = field(_POSITIVE)
    minor: int = field(_POSITIVE)
    rate: int = field(_POSITIVE)


class WeightDevice(Shape):
    """The weight of one block device, 10 to 1000."""

    major: int = field(_POSITIVE)
    minor: int = field(_POSITIVE)
    weight: int = field(integer(10, 1000))


class BlockIo(Shape):
    """Block device bandwidth."""

    weight: int | None = field(optional(integer(0, 1000)), None)
    weight_device: Sequence[WeightDevice] = field(listed(shaped(WeightDevice)), ())
    throttle_read_bps_device: Sequence[ThrottleDevice] = field(listed(shaped(ThrottleDevice)), ())
    throttle_write_bps_device: Sequence[ThrottleDevice] = field(listed(shaped(ThrottleDevice)), ())
    throttle_read_iops_device: Sequence[ThrottleDevice] = field(
        listed(shaped(ThrottleDevice)), (), wire="throttleReadIOPSDevice"
    )
    throttle_write_iops_device: Sequence[ThrottleDevice] = field(
        listed(shaped(ThrottleDevice)), (), wire="throttleWriteIOPSDevice"
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


def _interface(value: Any) -> str:
    name = text(value)
    if not 0 < len(name) <= 15 or not set(" /\n").isdisjoint(name):
        raise Mismatch("Expected the name of an interface")
    return name


def _page_size(value: Any) -> str:
    size = text(value)
    number = size[:-2]
    if size[-2:] not in ("KB", "MB", "GB") or not (number.isascii() and number.isdecimal() and len(number) <= 6):
        raise Mismatch("Expected a page size such as `2MB`")
    return size


class NetworkPriority(Shape):
    """Priority of traffic on one interface (version 1)."""

    name: str = field(_interface)
    priority: int = field(integer(0, (1 << 32) - 1))


class Network(Shape):
    """Marks on network traffic (version 1)."""

    class_id: int | None = field(optional(integer(0, (1 << 32) - 1)), None, wire="classID")
    priorities: Sequence[NetworkPriority] = field(listed(shaped(NetworkPriority)), ())


class Rdma(Shape):
    """Handles and objects of one RDMA device."""

    hca_handles: int | None = field(optional(integer(0, (1 << 31) - 1)), None)
    hca_objects: int | None = field(optional(integer(0, (1 << 31) - 1)), None)

    def line(self, device: str) -> str:
        """As rdma.max takes it."""
        pairs = (("hca_handle", self.hca_handles), ("hca_object", self.hca_objects))
        return " ".join([device, *(f"{key}={value}" for key, value in pairs if value is not None)])


class HugepageLimit(Shape):
    """Bytes in huge pages of one size, such as `2MB`."""

    page_size: str = field(_page_size)
    limit: int = field(_POSITIVE)


class Resources(Shape):
    """Everything a cgroup can be told."""

    memory: Memory = field(shaped(Memory), Memory())
    cpu: Cpu = field(shaped(Cpu), Cpu())
    pids: Pids | None = field(optional(shaped(Pids)), None)
    block_io: BlockIo = field(shaped(BlockIo), BlockIo(), wire="blockIO")
    hugepage_limits: Sequence[HugepageLimit] = field(listed(shaped(HugepageLimit)), ())
    devices: Sequence[Mapping[str, Any]] | None = field(optional(listed(mapped(anything))), None)
    unified: Mapping[str, str] = field(mapped(text), {})
    network: Network = field(shaped(Network), Network())
    rdma: Mapping[str, Rdma] = field(mapped(shaped(Rdma)), {})

    def device_rules(self) -> list[DeviceRule]:
        """The rules; without any, the default ones: no list must never mean no limits (GHSA-g54h-m393-cpwq)."""
        return parse_rules(self.devices or defaults.device_rules())


def parse_resources(resources: Mapping[str, Any] | None) -> Resources:
    """Check a decoded `linux.resources`. Raises Invalid."""
    try:
        parsed = convert({**resources} if resources else {}, Resources)
    except Mismatch as error:
        raise Invalid(f"resources are not valid: {error}", code="invalid-config") from None
    for device in parsed.rdma:
        if not device or not device.isascii() or not device.isprintable() or " " in device or "/" in device:
            raise Invalid(f"`{device}` is not an RDMA device", code="invalid-config", subject=device)
    for key in parsed.unified:
        if "/" in key or not key:
            raise Invalid(f"`{key}` is not a cgroup file", code="invalid-config", subject=key)
    return parsed
