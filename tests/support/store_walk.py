"""Read everything a store has and say what is wrong with it: with the tests' own eyes, and with `system check`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proa.engine.engine import Engine


class _Hash:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.hash.update(data)


def walk(engine: Engine) -> dict[str, Any]:
    """What is visible: names with their manifests, the file trees of all images and containers; and all problems."""
    from proa.errors import ProaError
    from proa.oci import chain_ids
    from proa.storage.layers import tar_tree
    from proa.transfer import read_image

    storage = engine.storage
    problems = list(storage.damaged)
    names, trees = {}, {}
    for image in storage.images.walk():
        names[image.name] = image.descriptor.digest
        try:
            stored = read_image(storage.content, image.descriptor)
            for layer in stored.manifest.layers:
                with storage.content.open(layer) as reader:
                    while reader.read(1 << 20):
                        pass
            chains = chain_ids(stored.config.rootfs.diff_ids)
            if chains:
                storage.snapshots.stat(chains[-1])
                seen = _Hash()
                tar_tree(storage.snapshots.lowers(chains[-1]), seen, nanoseconds=True)
                trees[stored.manifest.config.digest] = seen.hash.hexdigest()
        except (ProaError, OSError) as error:
            problems.append(f"image {image.name}: {error}")
    containers = {}
    for entry in engine.catalog:
        record = entry.record
        try:
            mounts = storage.snapshots.mounts(f"container:{record.id}")
            top = next(o for o in mounts[0].options if o.startswith("upperdir=")).removeprefix("upperdir=")
            found = {str(p.relative_to(top)): p.read_text() for p in sorted(Path(top).rglob("*")) if p.is_file()}
            containers[record.name] = found
        except (ProaError, OSError) as error:
            problems.append(f"container {record.name}: {error}")
    volumes = {}
    for volume in engine.volumes.list():
        seen = _Hash()
        tar_tree(volume.mountpoint, seen, nanoseconds=True)
        volumes[volume.name] = seen.hash.hexdigest()
    problems += [f"system check: {problem}" for problem in engine.integrity.check().problems]
    return {"names": names, "trees": trees, "containers": containers, "volumes": volumes, "problems": problems}


def copy_tree(source: Path, target: Path) -> None:
    """A copy with everything a layer directory has: owners, devices, links, overlay's attributes."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def shape(root: Path) -> set[str]:
    """Every path below a closed root, with random names made comparable: nothing in it may be left over."""
    owners = {}
    for path in (root / "snapshots" / "records" / "committed").glob("*.json"):
        record = json.loads(path.read_bytes())
        owners[record["id"]] = record["name"]
    for path in (root / "snapshots" / "records" / "active").iterdir():
        owners[os.readlink(path).split(",")[0]] = "active"
    out = set()
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.relpath(os.path.join(directory, name), root)
            parts = path.split("/")
            if parts[0] == "snapshots" and len(parts) > 1 and parts[1] != "records":
                parts[1] = owners.get(parts[1], f"nobody's {parts[1]}")
            if parts[0] == "containers" and len(parts) > 1:
                parts[1] = "container"
            if path.startswith("snapshots/records/active/container"):
                parts[3] = "container"
            if parts[0] != "index.sqlite" and not parts[0].startswith("index.sqlite"):
                out.add("/".join(parts))
    return out - {"index.dirty"}
