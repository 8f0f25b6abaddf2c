"""`--mount type=bind,source=/a,target=/b,readonly` as Docker's Mount document."""

from __future__ import annotations

from proa.cli.values import byte_size
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["parse_mount"]

_KINDS = ("bind", "volume", "tmpfs", "image")


def _fields(text: str) -> list[str]:
    """The comma-separated fields; `"a,b"` keeps its comma and `""` is a quote (RFC 4180)."""
    fields, current, quoted, position = [], "", False, 0
    while position < len(text):
        char = text[position]
        if char == '"' and quoted and text[position + 1 : position + 2] == '"':
            current += '"'
            position += 1
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            fields.append(current)
            current = ""
        else:
            current += char
        position += 1
    return [*fields, current]


def _flag(value: str, mark: str, text: str) -> bool:
    if not mark or value in ("1", "true"):
        return True
    if value in ("0", "false"):
        return False
    raise Invalid(f"invalid mount `{text}`: `{value}` is not true or false", code="bad-mount", subject=text)


def _recursive(mount: dict[str, Any], value: str, text: str) -> None:
    """bind-recursive=enabled|disabled|writable|readonly: the mounts below, and whether they are read-only, too."""
    members = {
        "enabled": {},
        "disabled": {"NonRecursive": True},
        "writable": {"ReadOnlyNonRecursive": True},
        "readonly": {"ReadOnlyForceRecursive": True},
    }.get(value)
    if members is None:
        raise Invalid(f"invalid mount `{text}`: invalid value for bind-recursive: {value}", code="bad-mount")
    mount.setdefault("BindOptions", {}).update(members)


def parse_mount(text: str) -> dict[str, Any]:
    """Read one --mount value.

    Raises Invalid when a key is unknown, or type, source and target do not fit together.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    for field in _fields(text):
        key, mark, value = field.partition("=")
        key = key.lower()
        if key == "type":
            mount["Type"] = value.lower()
        elif key in ("source", "src"):
            mount["Source"] = value
        elif key in ("target", "dst", "destination"):
            mount["Target"] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = _flag(value, mark, text)
        elif key == "bind-propagation":
            mount.setdefault("BindOptions", {})["Propagation"] = value
        elif key == "bind-nonrecursive":
            mount.setdefault("BindOptions", {})["NonRecursive"] = _flag(value, mark, text)
        elif key == "bind-recursive":
            _recursive(mount, value, text)
        elif key == "bind-create-src":
            mount.setdefault("BindOptions", {})["CreateMountpoint"] = _flag(value, mark, text)
        elif key == "volume-nocopy":
            mount.setdefault("VolumeOptions", {})["NoCopy"] = _flag(value, mark, text)
        elif key == "volume-subpath":
            mount.setdefault("VolumeOptions", {})["Subpath"] = value
        elif key == "volume-label":
            name, _, label = value.partition("=")
            mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = label
        elif key == "volume-driver":
            mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
        elif key == "volume-opt":
            name, _, option = value.partition("=")
            driver = mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
            driver.setdefault("Options", {})[name] = option
        elif key == "image-subpath":
            mount.setdefault("ImageOptions", {})["Subpath"] = value
        elif key == "tmpfs-size":
            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = byte_size(value, "mount")
        elif key == "tmpfs-mode":
            if not value or not set(value) <= set("01234567"):
                raise Invalid(f"invalid mount `{text}`: tmpfs-mode is octal", code="bad-mount", subject=text)
            mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
        else:
            raise Invalid(f"invalid mount `{text}`: unknown key `{key}`", code="bad-mount", subject=text)
    if mount["Type"] not in _KINDS:
        raise Invalid(f"invalid mount `{text}`: type is not {', '.join(_KINDS)}", code="bad-mount", subject=text)
    if not mount.get("Target"):
        raise Invalid(
            f"invalid mount `{text}`: it has no target", code="bad-mount", subject=text, hint="add target=/path"
        )
    if mount["Type"] == "bind" and not mount.get("Source"):
        raise Invalid(f"invalid mount `{text}`: a bind has a source", code="bad-mount", subject=text)
    if mount["Type"] == "tmpfs" and mount.get("Source"):
        raise Invalid(f"invalid mount `{text}`: a tmpfs has no source", code="bad-mount", subject=text)
    return mount
