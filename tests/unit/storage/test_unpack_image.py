import io
import threading

import pytest
from storage_fakes import make_image

from proa.errors import Corrupt, NotFound
from proa.oci import chain_ids
from proa.storage import Storage, unpack_image, upper_dir


def test_layers_become_snapshots_by_chain_id(storage):
    _, config, layers = make_image(storage, "a", [b"base", b"one", b"two"])
    seen = []
    top = unpack_image(storage, config, layers, progress=lambda layer, status: seen.append((layer.digest, status)))
    chains = chain_ids(config.rootfs.diff_ids)
    assert top == chains[-1]
    assert {s.key: s.parent for s in storage.snapshots.walk()} == dict(zip(chains, ["", *chains], strict=False))
    assert [s for _, s in seen] == ["unpacking", "unpacked"] * 3
    assert [len(p) for p in storage.unpacker.parents] == [0, 1, 2]
    assert storage.unpacker.parents[2][0].endswith("/2/fs"), "uppermost parent first"
    assert storage.leases.walk() == []


def test_second_time_unpacks_nothing(storage):
    _, config, layers = make_image(storage, "a", [b"base", b"one"])
    unpack_image(storage, config, layers)
    seen = []
    unpack_image(storage, config, layers, lambda layer: pytest.fail("read"), lambda layer, s: seen.append(s))
    assert seen == ["exists", "exists"]


def test_scratch_image(storage):
    _, config, layers = make_image(storage, "a", [])
    assert unpack_image(storage, config, layers) == ""


def test_wrong_diff_id_leaves_nothing(storage):
    _, config, layers = make_image(storage, "a", [b"base", b"one"])
    _, other, _ = make_image(storage, "b", [b"base", b"two"])
    with pytest.raises(Corrupt) as e:
        unpack_image(storage, other, layers)
    assert e.value.code == "diff-id-mismatch"
    assert [s.key for s in storage.snapshots.walk()] == chain_ids(config.rootfs.diff_ids)[:1]
    assert storage.trash.drain(20)
    assert sorted(p.name for p in storage.paths.snapshots.iterdir()) == ["1", "records"]


def test_reader_that_fails_leaves_nothing(storage):
    _, config, layers = make_image(storage, "a", [b"base"])

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise Corrupt("cut")

    reader = Broken(b"base")
    with pytest.raises(Corrupt, match="cut"):
        unpack_image(storage, config, layers, lambda layer: reader)
    assert reader.closed
    assert list(storage.snapshots.walk()) == []
    storage.content.delete(layers[0].digest)
    with pytest.raises(NotFound):
        unpack_image(storage, config, layers)
    assert list(storage.snapshots.walk()) == []


def test_config_and_layers_must_agree(storage):
    _, config, layers = make_image(storage, "a", [b"base", b"one"])
    with pytest.raises(Corrupt, match="2 diff_ids for 1 layers"):
        unpack_image(storage, config, layers[:1])


def test_shared_layers_are_unpacked_once(storage):
    images = [make_image(storage, f"i{n}", [b"base", b"shared", b"%d" % (n % 2)]) for n in range(8)]
    threads = [threading.Thread(target=unpack_image, args=(storage, c, layers)) for _, c, layers in images]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert len(storage.unpacker.parents) == 4
    assert len(list(storage.snapshots.walk())) == 4


def test_dead_unpack_is_dropped_at_the_start(tmp_path):
    with Storage.open(tmp_path / "root") as first:
        mounts = first.snapshots.prepare("unpack:sha256:x:1")
        open(f"{upper_dir(mounts)}/half", "w").close()
        first.snapshots.prepare("container:1")
    with Storage.open(tmp_path / "root") as second:
        assert [s.key for s in second.snapshots.walk()] == ["container:1"]
        assert second.trash.drain(20)
        assert sorted(p.name for p in second.paths.snapshots.iterdir()) == ["2", "records"]
