"""How the values of options are written: sizes, times, decimals, ports, ulimits, key=value files. Pure and strict.

Every function raises Invalid for text that is not one, with the option's spelling in it.
"""

from __future__ import annotations

from proa.client.endpoint import variable
from proa.errors import Invalid

__all__ = [
    "byte_size",
    "duration_ns",
    "key_values",
    "nano_cpus",
    "port_range",
    "published_ports",
    "restart_policy",
    "throttled_device",
    "ulimit",
    "variables",
    "variables_of_files",
    "weighted_device",
]

_SHIFTS = {"": 0, "b": 0} | {
    unit + tail: 10 * power for power, unit in enumerate("kmgtp", 1) for tail in ("", "b", "ib")
}
_DURATION_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1


def byte_size(text: str, option: str) -> int:
    """`512m`, `1.5 GiB`, `1024`: bytes, with units of 1024, as go-units' RAMInBytes reads them; `-1` stays."""
    if not text or text == "-1":
        return int(text or 0)
    number = text.rstrip("bBiIkKmMgGtTpP")
    shift = _SHIFTS.get(text[len(number) :].lower())
    whole, _, part = number.removesuffix(" ").partition(".")
    if shift is not None and len(text) <= 40 and _whole(whole + part) >= 0:
        size: int = (int(whole + part) << shift) // 10 ** len(part)
        if size < 1 << 63:
            return size
    raise Invalid(f"invalid size `{text}` for --{option}", code="bad-size", hint="write 512m or 2g")


def nano_cpus(text: str) -> int:
    """`1.5` CPUs as 1_500_000_000."""
    whole, _, part = text.partition(".")
    if _whole(whole or "0") < 0 or len(part) > 9 or (part and _whole(part) < 0) or not (whole or part):
        raise Invalid(f"invalid number of CPUs `{text}` for --cpus", code="bad-cpus", hint="write 0.5 or 2")
    return int((whole or "0") + part.ljust(9, "0"))


def duration_ns(text: str, option: str) -> int:
    """`1m30s`, `500ms`: nanoseconds."""
    total, rest = 0, text
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        rest = rest[len(unit) :]
        whole, _, part = number.partition(".")
        if _whole(whole or "0") < 0 or (part and _whole(part) < 0) or not number or unit not in _DURATION_NS:
            if text == "0":
                return 0
            raise Invalid(f"invalid duration `{text}` for --{option}", code="bad-duration", hint="write 30s or 1m30s")
        total += int((whole or "0") + part) * _DURATION_NS[unit] // 10 ** len(part)
    return total


def ulimit(text: str) -> dict[str, object]:
    """`nofile=1024:2048` as Docker's {"Name", "Soft", "Hard"}."""
    name, mark, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    numbers = [int(n) if n == "-1" else _whole(n) for n in (soft, hard or soft)]
    if (
        not mark
        or not name
        or min(numbers) < -1
        or any(n == -1 and t != "-1" for n, t in zip(numbers, (soft, hard or soft), strict=True))
    ):
        raise Invalid(f"invalid ulimit `{text}`", code="bad-ulimit", hint="write name=soft:hard")
    return {"Name": name, "Soft": numbers[0], "Hard": numbers[1]}


def restart_policy(text: str) -> dict[str, object]:
    """`on-failure:3` as Docker's {"Name", "MaximumRetryCount"}."""
    policy, mark, times = text.partition(":")
    if (mark and _whole(times) < 0) or not policy:
        raise Invalid(f"invalid restart policy format: `{text}`", code="bad-restart-policy", hint="write on-failure:3")
    return {"Name": policy, "MaximumRetryCount": int(times or 0)}


def weighted_device(text: str, option: str) -> dict[str, object]:
    """`/dev/sda:500` as Docker's {"Path", "Weight"}."""
    path, mark, weight = text.rpartition(":")
    if not mark or not path.startswith("/dev/") or _whole(weight) < 0:
        raise Invalid(f"bad format for --{option}: {text}", code="bad-device", hint="write /dev/sda:500")
    return {"Path": path, "Weight": int(weight)}


def throttled_device(text: str, option: str) -> dict[str, object]:
    """`/dev/sda:1mb` (or operations per second, for the iops options) as Docker's {"Path", "Rate"}."""
    path, mark, rate = text.rpartition(":")
    if not mark or not path.startswith("/dev/"):
        raise Invalid(f"bad format for --{option}: {text}", code="bad-device", hint="write /dev/sda:1mb")
    if option.endswith("iops") and _whole(rate) < 0:
        raise Invalid(f"invalid rate for device: {text}: not a whole number", code="bad-device")
    return {"Path": path, "Rate": int(rate) if option.endswith("iops") else byte_size(rate, option)}


def key_values(texts: list[str], option: str, *, need_value: bool = False) -> dict[str, str]:
    """Repeated `key=value` as a mapping; `key` alone has an empty value."""
    result = {}
    for text in texts:
        key, mark, value = text.partition("=")
        if not key or (need_value and not mark):
            raise Invalid(f"invalid value `{text}` for --{option}", code="bad-key-value", hint="write key=value")
        result[key] = value
    return result


def variables(texts: list[str]) -> list[str]:
    """`-e` values: `NAME=value` as it is, `NAME` with our own value or, without one, not at all."""
    result = []
    for text in texts:
        name, mark, _ = text.partition("=")
        if not name:
            raise Invalid(f"invalid environment variable: {text}", code="bad-variable", hint="write NAME=value")
        if "\0" in text:
            raise Invalid(f"environment variable {name} holds a NUL byte", code="bad-variable")
        if mark:
            result.append(text)
        else:
            result += _own(name)
    return result


def variables_of_files(paths: list[str], option: str) -> list[str]:
    """The lines of `--env-file` and `--label-file`: comments and empty lines do not count, quotes are kept."""
    result = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise Invalid(f"cannot read {path} for --{option}: {error.strerror}", code="unreadable-file") from None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Invalid(f"{path} for --{option} is not UTF-8", code="unreadable-file", subject=path) from None
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.removesuffix("\r").lstrip(" \t")
            if not stripped or stripped.startswith("#"):
                continue
            name, mark, _ = stripped.partition("=")
            if not name or any(c in name for c in " \t"):
                what = f"variable `{name}` contains whitespaces" if name else "no variable name"
                raise Invalid(f"{path} line {number}: {what}", code="bad-variable", subject=path)
            if mark or option == "label-file":
                result.append(stripped)
            else:
                result += _own(name)
    return result


def _own(name: str) -> list[str]:
    from posix import environ

    return [f"{name}={variable(name)}"] if name.encode("utf-8", "surrogateescape") in environ else []


def port_range(text: str, option: str) -> list[int]:
    """`80` or `8000-8010`."""
    first, mark, last = text.partition("-")
    low, high = _whole(first), _whole(last if mark else first)
    if not (0 <= low <= high < 65536):
        raise Invalid(f"invalid port `{text}` for --{option}", code="bad-port")
    return list(range(low, high + 1))


def published_ports(texts: list[str]) -> tuple[dict[str, object], dict[str, list[dict[str, str]]]]:
    """`-p [[ip:]host:]container[/protocol]` as Docker's ExposedPorts and PortBindings."""
    exposed: dict[str, object] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        rest, _, protocol = text.partition("/")
        protocol = (protocol or "tcp").lower()
        if protocol not in ("tcp", "udp", "sctp"):
            raise Invalid(f"invalid protocol in `{text}` for --publish", code="bad-port", hint="use tcp, udp or sctp")
        front, _, inner = rest.rpartition(":")
        address, _, outer = front.rpartition(":")
        if front.endswith("]"):
            address, outer = front, ""
        inside = port_range(inner, "publish")
        outside = port_range(outer, "publish") if outer else []
        if outside and len(outside) != len(inside):
            if len(inside) != 1:
                raise Invalid(f"port ranges of different lengths in `{text}`", code="bad-port")
            hosts = [outer]  # the engine picks a free one of the range
        else:
            hosts = [str(n) for n in outside] or [""] * len(inside)
        for port, host in zip(inside, hosts, strict=True):
            key = f"{port}/{protocol}"
            exposed[key] = {}
            bindings.setdefault(key, []).append({"HostIp": address.strip("[]"), "HostPort": host})
    return exposed, bindings
