"""An engine as clients of Docker expect one: the images of the hub are to be had, from a mirror."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine
from registries import Registry


@pytest.fixture(scope="session")
def hub(registry: Registry) -> Iterator[PrivateEngine]:
    """The engine, which has no image yet."""
    directory = Path(tempfile.mkdtemp(prefix="proa-test-"))
    private = PrivateEngine(directory)
    config = directory / "proa.toml"
    # As Docker has it by default: what listens on loopback needs no certificate.
    config.write_text(f'insecure-registries = ["127.0.0.0/8"]\n[registry-mirrors]\n"docker.io" = ["{registry.host}"]\n')
    private.env["PROA_CONFIG"] = str(config)
    clients.fill_hub(registry, private)
    yield private
    private.close()
