"""Merge a create request with the image's defaults, by Docker's rules."""

from __future__ import annotations

import msgspec

from proa.engine.healthcheck import check_healthcheck, merged_check
from proa.engine.signal_names import parse_signal
from proa.engine.types import ContainerConfig
from proa.errors import Invalid
from proa.oci import RunConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge_config(wanted: ContainerConfig, image: RunConfig) -> ContainerConfig:
    """What the container runs with. Raises Invalid when nothing says what to run, or for what cannot be.

    An entrypoint given by the user drops the image's command; `[""]` means no entrypoint at all.
    """
    if wanted.stop_signal:
        parse_signal(wanted.stop_signal)
    check_healthcheck(wanted.healthcheck)
    entrypoint, command = wanted.entrypoint, wanted.cmd
    if not entrypoint:
        if not command:
            command = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = None
    if not (entrypoint or command):
        raise Invalid("no command specified", code="no-command")
    merged = msgspec.structs.replace(
        wanted,
        entrypoint=entrypoint,
        cmd=command,
        user=wanted.user or image.user,
        working_dir=wanted.working_dir or image.working_dir,
        env=merge_env([e for e in image.env or [] if "=" in e[1:]], wanted.env or []),
        labels={**(image.labels or {}), **(wanted.labels or {})},
        exposed_ports={**(image.exposed_ports or {}), **(wanted.exposed_ports or {})} or None,
        volumes={**(image.volumes or {}), **(wanted.volumes or {})} or None,
        stop_signal=wanted.stop_signal or _known_signal(image.stop_signal),
        healthcheck=merged_check(wanted.healthcheck, image.healthcheck),
    )
    if not any(e.startswith("PATH=") for e in merged.env or []):
        merged.env = [DEFAULT_PATH, *(merged.env or [])]
    _check(merged)
    return merged


def merge_env(base: list[str], extra: list[str]) -> list[str]:
    """`base` with `extra` on top, order kept. An entry of `extra` without `=` removes the variable."""
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in extra:
        name, equals, _ = entry.partition("=")
        if not name:
            raise Invalid(f"invalid environment variable: {entry!r}", code="env-invalid")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def _known_signal(text: str) -> str:
    """An image's stop signal, or nothing when there is none of that name: it must not make a container unstoppable."""
    try:
        parse_signal(text)
    except Invalid:
        return ""
    return text


def _check(config: ContainerConfig) -> None:
    for what, values in (
        ("environment variable", config.env),
        ("command", config.cmd),
        ("entrypoint", config.entrypoint),
    ):
        for value in values or []:
            if "\0" in value:
                raise Invalid(f"{what} contains a NUL byte: {value[:80]!r}", code="nul-byte")
    for what, text in (("hostname", config.hostname), ("domainname", config.domainname)):
        if len(text) > 64 or any(c.isspace() or c in "/:\0" for c in text):
            raise Invalid(f"invalid {what} {text[:80]!r}", code="hostname-invalid")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(
            f"the working directory '{config.working_dir[:200]}' is invalid, it needs to be an absolute path",
            code="workdir-invalid",
        )
