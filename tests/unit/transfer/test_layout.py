"""OCI layouts from anyone: nothing outside the directory is ever opened."""

import hashlib
import json
import os

import pytest

from proa.errors import Conflict, Corrupt, Invalid, NotFound, ProaError
from proa.oci import Descriptor
from proa.transfer import Layout, copy

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def layout(tmp_path):
    """A layout with one image, `v1`, of an empty config."""
    folder = tmp_path / "layout" / "blobs" / "sha256"
    folder.mkdir(parents=True)

    def add(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    config = add(b'{"rootfs":{"type":"layers","diff_ids":[]}}', "application/vnd.oci.image.config.v1+json")
    root = add(
        json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).encode(), MANIFEST
    )
    root["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    path = tmp_path / "layout"
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    return path


def test_copy_between_layouts_keeps_other_names(layout, tmp_path):
    out = tmp_path / "out"
    first = copy(Layout(layout), Layout(out, "a"))
    copy(Layout(layout, "v1"), Layout(out, "b"))
    copy(Layout(layout, "v1"), Layout(out, "b"))
    assert Layout(out, "a").resolve() == Layout(out, "b").resolve() == first
    with pytest.raises(Conflict, match="2 images"):
        Layout(out).resolve()
    with pytest.raises(NotFound):
        Layout(out, "c").resolve()
    assert sorted(p.name for p in out.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_symbolic_links_are_not_followed(layout, tmp_path):
    blob = next((layout / "blobs/sha256").iterdir())
    secret = tmp_path / "secret"
    secret.write_bytes(blob.read_bytes())
    descriptor = Descriptor(media_type="x", digest=f"sha256:{blob.name}", size=secret.stat().st_size)
    blob.unlink()
    blob.symlink_to(secret)
    with pytest.raises(Invalid):
        Layout(layout).open(descriptor)
    (tmp_path / "moved").mkdir()
    os.rename(layout / "blobs", tmp_path / "moved/blobs")
    (layout / "blobs").symlink_to(tmp_path / "moved/blobs")
    with pytest.raises(Invalid):
        Layout(layout).open(descriptor)
    (layout / "index.json").unlink()
    (layout / "index.json").symlink_to("/etc/passwd")
    with pytest.raises(Invalid):
        Layout(layout).resolve()


def test_fifos_do_not_hang(layout):
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")
    with pytest.raises(Invalid, match="no regular file"):
        Layout(layout).resolve()


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "x", "sha256:" + "a" * 63 + "\n"]
)
def test_only_digests_become_names(layout, digest):
    with pytest.raises(Invalid):
        Layout(layout).open(Descriptor(media_type="x", digest=digest, size=1))


def test_changed_blobs_are_corrupt(layout):
    root = Layout(layout).resolve()
    path = layout / "blobs/sha256" / root.digest[7:]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b" ")
    with pytest.raises(Corrupt):
        Layout(layout).read(root)
    path.write_bytes(data + b" ")
    with pytest.raises(Corrupt):
        Layout(layout).read(root)


def test_sparse_giants_and_wrong_versions_are_refused(layout):
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"9.0.0"}')
    with pytest.raises(Invalid, match="version 1"):
        Layout(layout).resolve()
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    os.truncate(layout / "index.json", 2 << 30)
    with pytest.raises(ProaError, match="more than"):
        Layout(layout).resolve()
