"""A real root file system from bytes to a mounted container, with the real unpack workers."""

from __future__ import annotations

import gzip
import os
import threading

import pytest

from proa.errors import Corrupt, ProaError
from proa.oci import Descriptor, ImageConfig, RootFS, digest_of, media_types
from proa.storage import Storage, read_blob, unpack_image, write_blob
from proa.testing import run_mounted

pytestmark = pytest.mark.root


@pytest.fixture
def storage(tmp_path):
    with Storage.open(tmp_path / "root") as storage:
        yield storage
        assert storage.trash.drain(30)
        assert not storage.trash.blocked


@pytest.fixture
def layer(busybox_tar):
    raw = busybox_tar.read_bytes()
    config = ImageConfig(architecture="amd64", os="linux", rootfs=RootFS(diff_ids=[digest_of(raw)]))
    return config, gzip.compress(raw, 1)


def describe(data: bytes) -> Descriptor:
    return Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=digest_of(data), size=len(data))


def test_stored_layer_to_container(storage, layer):
    config, data = layer
    top = unpack_image(storage, config, [write_blob(storage.content, data, media_types.OCI_LAYER_GZIP)])
    mounts = storage.snapshots.prepare("container:1", top)
    assert run_mounted(mounts, "/bin/busybox chroot . /bin/cat /etc/os-release").startswith('NAME="busybox"')
    assert run_mounted(mounts, "stat -c '%a %U' tmp; echo x >etc/motd; rm bin/ls") == "1777 root\n"
    usage = storage.snapshots.usage("container:1")
    assert usage.inodes == 5
    assert storage.snapshots.usage(top).size_bytes > 1_000_000


def test_layer_is_unpacked_while_it_arrives(storage, layer):
    config, data = layer
    done: list[str] = []
    with storage.leases.hold("pull"), storage.content.ingest("layer", describe(data)) as ingest:
        reader = ingest.follow()
        thread = threading.Thread(
            target=lambda: done.append(unpack_image(storage, config, [describe(data)], lambda _: reader))
        )
        thread.start()
        for i in range(0, len(data), 40_000):
            ingest.write(data[i : i + 40_000])
        assert not done
        ingest.commit()
        thread.join(60)
    assert done == [config.rootfs.diff_ids[0]]
    assert storage.snapshots.stat(done[0]).kind == "committed"


@pytest.mark.parametrize("fault", ["cut", "changed"])
def test_bad_download_leaves_no_snapshot(storage, layer, fault):
    config, data = layer
    wrong = data[: len(data) // 2] if fault == "cut" else data[:5000] + bytes(100) + data[5100:]
    errors: list[ProaError] = []

    def unpack(reader):
        try:
            unpack_image(storage, config, [describe(data)], lambda _: reader)
        except ProaError as e:
            errors.append(e)

    with storage.content.ingest("layer", describe(data)) as ingest:
        thread = threading.Thread(target=unpack, args=(ingest.follow(),))
        thread.start()
        ingest.write(wrong)
        with pytest.raises(Corrupt):
            ingest.commit()
    thread.join(60)
    assert len(errors) == 1
    assert list(storage.snapshots.walk()) == []
    assert list(storage.content.walk()) == []
    assert storage.trash.drain(20)
    assert "fs" not in os.listdir(storage.paths.snapshots)


def test_blob_changed_on_disk_is_found(storage, layer):
    config, data = layer
    d = write_blob(storage.content, data, media_types.OCI_LAYER_GZIP)
    path = storage.content.path(d.digest)
    path.chmod(0o600)
    with open(path, "r+b") as f:
        f.seek(len(data) // 2)
        f.write(b"\0" * 64)
    with pytest.raises(Corrupt):
        read_blob(storage.content, d, len(data))
    with pytest.raises(Corrupt):
        unpack_image(storage, config, [d])
    assert list(storage.snapshots.walk()) == []
