"""Commits: a container's changes as a new image layer, and the list of what it changed."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from proa.engine.catalog import Entry
from proa.engine.changes import apply_changes
from proa.engine.clock import now, rfc3339
from proa.engine.healthcheck import merged_check
from proa.engine.startup import bind_targets
from proa.engine.types import ContainerConfig
from proa.errors import ProaError, Unsupported
from proa.oci import CONFIG_LIMIT, Descriptor, Digest, RunConfig, parse_config, strict_loads
from proa.runtime.steps.shifting import is_shifted
from proa.storage import lower_dirs, unpack_image, upper_dir
from proa.storage.layers import CompressedLayerWriter, diff
from proa.storage.layers.encoders import Compression, parse_compression
from proa.transfer import Stored, assign, make_image
from proa.transfer.early_layer import EarlyLayer
from proa.transfer.stored_image import OCI_LAYERS, PARENT

if TYPE_CHECKING:
    from proa.engine.engine import Engine

MODIFIED, ADDED, DELETED = 0, 1, 2


class Commits:
    """Make images of containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def commit(
        self,
        container: str,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        author: str = "",
        pause: bool = True,
        changes: list[str] | None = None,
        config: ContainerConfig | None = None,
        source_date_epoch: int | None = None,
        compression: str = "none",
    ) -> str:
        """Make an image of a container's file system and return its ID.

        The container is frozen meanwhile, unless `pause` is false. source_date_epoch: seconds since the epoch; the
        image is of that time, and no file in the layer is newer, so the same changes make the same image.
        compression: of the new layer, see parse_compression; a push compresses what is plain.
        Raises NotFound, Invalid, Conflict, Exhausted.
        """
        engine = self._engine
        entry = engine.catalog.find(container)
        name = ""
        if repository:
            name = engine.images.short_names.parse(f"{repository}:{tag}" if tag else repository).name
        base = engine.images.load_manifest(entry.record.manifest, entry.record.image_id)
        run_config = apply_changes(_run_config(config or entry.record.config), changes or [])
        packing = parse_compression(compression)
        # The new layer is unpacked while it is written: both take about as long.
        with (
            engine.storage.leases.hold(f"commit {entry.record.id[:12]}"),
            EarlyLayer(engine.storage, entry.record.chain_id) as early,
        ):
            layer, diff_id = self._write_layer(entry, packing, early, pause=pause, source_date_epoch=source_date_epoch)
            early.settle({diff_id})
            created = now() if source_date_epoch is None else rfc3339(source_date_epoch * 1_000_000_000)
            raw = self._config(base.config_raw, run_config, diff_id, entry, message, author, created)
            layers = [*base.manifest.layers, layer]
            made = make_image(engine.storage.content, raw, layers)
            descriptor = msgspec.structs.replace(made, annotations={PARENT: entry.record.image_id})
            unpack_image(engine.storage, parse_config(raw), layers, admitted=True)
            assign(engine.storage, name or descriptor.digest, descriptor)
        stored = engine.images.load(descriptor)
        image_id = stored.manifest.config.digest
        engine.containers.announce(entry, "commit", comment=message, imageID=image_id, imageRef=name)
        return image_id

    def _write_layer(
        self,
        entry: Entry,
        packing: Compression,
        early: EarlyLayer,
        *,
        pause: bool,
        source_date_epoch: int | None,
    ) -> tuple[Descriptor, Digest]:
        engine, record = self._engine, entry.record
        frozen = pause and record.state.status == "running" and not engine.abilities.no_limits
        if frozen:
            engine.lifecycle.pause(record.id, recorded=False)
        try:
            mounts = engine.storage.snapshots.mounts(f"container:{record.id}")
            if is_shifted(mounts[0].options):
                text = "its files were copied for its user namespace, so their owners are not the image's"
                raise Unsupported(f"container {record.id} cannot be committed: {text}", code="shifted")
            with Stored(engine.storage.content).begin_unknown("commit") as ingest:
                plain = packing.format == "none"
                early.begin(ingest, own=packing.format)
                sink = _Sink(ingest) if plain else CompressedLayerWriter(_Sink(ingest), *packing)
                result = diff(
                    upper_dir(mounts),
                    lower_dirs(mounts),
                    sink,
                    exclude=bind_targets(record),
                    source_date_epoch=source_date_epoch,
                    digest=False,
                )
                if isinstance(sink, CompressedLayerWriter):
                    sink.finish()
                size = ingest.offset
                digest = ingest.commit()
        finally:
            if frozen:
                try:
                    engine.lifecycle.unpause(record.id)
                except ProaError:
                    pass  # it was killed meanwhile
        layer = Descriptor(media_type=OCI_LAYERS[packing.format], digest=digest, size=size)
        return layer, digest if plain else result.diff_id

    @staticmethod
    def _config(
        base_raw: bytes, run: RunConfig, diff_id: str, entry: Entry, message: str, author: str, created: str
    ) -> bytes:
        """The parent's config with another layer: fields we do not know stay as they are."""
        document: dict[str, Any] = strict_loads(base_raw, CONFIG_LIMIT, "image config")
        document["created"] = created
        document["config"] = msgspec.to_builtins(run)
        for key in ("container", "container_config", "docker_version", "id", "parent"):
            document.pop(key, None)
        if author:
            document["author"] = author
        history: dict[str, Any] = {"created": created, "created_by": " ".join([entry.record.path, *entry.record.args])}
        if author:
            history["author"] = author
        if message:
            history["comment"] = message
        document["history"] = [*(document.get("history") or []), history]
        document["rootfs"] = {"type": "layers", "diff_ids": [*document["rootfs"]["diff_ids"], diff_id]}
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    def changes(self, entry: Entry) -> list[tuple[int, str]]:
        """What differs from the image: (0 modified, 1 added, 2 deleted; path), sorted."""
        mounts = self._engine.storage.snapshots.mounts(f"container:{entry.record.id}")
        lowers = [os.open(d, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for d in lower_dirs(mounts)]
        hidden = {os.fsdecode(p) for p in bind_targets(entry.record)}
        out: list[tuple[int, str]] = []
        try:
            top = upper_dir(mounts)
            for directory, names, files, fd in os.fwalk(top, follow_symlinks=False):
                names.sort()
                prefix = directory[len(top) :]
                for name in sorted([*names, *files]):
                    path = f"{prefix}/{name}"
                    if path.lstrip("/") in hidden:
                        continue
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                        out.append((DELETED, path))
                    else:
                        out.append((MODIFIED if _below(lowers, path) else ADDED, path))
        finally:
            for lower in lowers:
                os.close(lower)
        return sorted(out, key=lambda item: item[1])


class _Sink:
    """A binary file over an ingest."""

    def __init__(self, ingest: Any) -> None:
        self._ingest = ingest

    def write(self, data: bytes) -> int:
        """Append."""
        self._ingest.write(data)
        return len(data)


def _below(lowers: list[int], path: str) -> bool:
    for lower in lowers:
        try:
            found = os.stat(path.lstrip("/"), dir_fd=lower, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return not (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0)
    return False


def _run_config(config: ContainerConfig) -> RunConfig:
    """The image defaults that a container's configuration makes."""
    return RunConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        healthcheck=merged_check(None, config.healthcheck),
        shell=config.shell,
        on_build=config.on_build,
    )
