"""Container records for tests, with only what a test says."""

from __future__ import annotations

from typing import Any

from proa.engine.types import Container, ContainerConfig, HostConfig, State


def container(
    *, name: str = "box", status: str = "running", config: Any = None, host: Any = None, **more: Any
) -> Container:
    """A record; `config` and `host` are the fields of theirs that matter."""
    return Container(
        id=more.pop("id", "a" * 64),
        name=name,
        created=more.pop("created", "2026-01-02T03:04:05.000000006Z"),
        image_id=more.pop("image_id", "sha256:" + "b" * 64),
        image_name=more.pop("image_name", "busybox"),
        manifest="",
        chain_id="",
        platform="linux/amd64",
        config=ContainerConfig(**(config or {})),
        host=HostConfig(**(host or {})),
        state=State(status=status, exit_code=more.pop("exit_code", 0)),  # type: ignore[arg-type]
        **more,
    )
