import json
import threading

import pytest
from storage_fakes import make_image

from proa.oci import chain_ids, media_types
from proa.storage import Storage, unpack_image, write_blob


def unpacked(storage, name, layers):
    descriptor, config, stored = make_image(storage, name, layers)
    return descriptor, unpack_image(storage, config, stored)


def digests(storage):
    return {b.digest for b in storage.content.walk()}


def snapshots(storage):
    return {s.key for s in storage.snapshots.walk()}


def test_named_image_stays_and_unnamed_goes(storage):
    _, kept = unpacked(storage, "keep", [b"base", b"one"])
    before = digests(storage), snapshots(storage)
    _, gone = unpacked(storage, "", [b"base", b"two"])
    assert gone in snapshots(storage)
    collected = storage.collect()
    assert (digests(storage), snapshots(storage)) == before
    assert (collected.blobs, collected.snapshots) == (3, 1)
    assert collected.blob_bytes > 0
    assert kept in snapshots(storage)
    assert storage.collect().blobs == 0


def test_last_name_gone_frees_everything(storage):
    unpacked(storage, "a", [b"base", b"one"])
    storage.images.put("b", storage.images.get("a").descriptor)
    storage.images.delete("a")
    assert storage.collect().blobs == 0
    storage.images.delete("b")
    collected = storage.collect()
    assert collected.snapshots == 2
    assert digests(storage) == set()
    assert snapshots(storage) == set()
    assert storage.trash.drain(20)
    assert sorted(p.name for p in storage.paths.snapshots.iterdir()) == ["records"]


def test_container_keeps_its_snapshots(storage):
    _, top = unpacked(storage, "a", [b"base", b"one"])
    storage.snapshots.prepare("container:1", top)
    storage.images.delete("a")
    storage.collect()
    assert digests(storage) == set()
    assert len(snapshots(storage)) == 3
    storage.snapshots.remove("container:1")
    storage.collect()
    assert snapshots(storage) == set()


def test_given_roots_keep_content(storage):
    descriptor, _ = unpacked(storage, "", [b"base"])
    storage.collect([descriptor])
    assert len(digests(storage)) == 3
    storage.collect()
    assert digests(storage) == set()


def test_index_with_absent_platforms(storage):
    there, _ = unpacked(storage, "", [b"base"])
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {"mediaType": there.media_type, "digest": there.digest, "size": there.size},
                {"mediaType": there.media_type, "digest": "sha256:" + "1" * 64, "size": 5},
            ],
        }
    ).encode()
    storage.images.put("multi", write_blob(storage.content, raw, media_types.OCI_INDEX))
    assert storage.collect().blobs == 0
    assert len(digests(storage)) == 4


def test_damaged_manifest_does_not_stop_the_rest(storage):
    descriptor, _ = unpacked(storage, "bad", [b"base"])
    unpacked(storage, "good", [b"other"])
    path = storage.content.path(descriptor.digest)
    path.chmod(0o600)
    path.write_bytes(b"x" * descriptor.size)
    storage.edges.clear()
    storage.collect()
    assert len(digests(storage)) == 4
    storage.images.delete("bad")
    storage.collect()
    assert len(digests(storage)) == 3


def test_lease_protects_what_is_added(storage):
    with storage.leases.hold("pull"):
        unpacked(storage, "", [b"base"])
        storage.collect()
        assert len(digests(storage)) == 3
        assert len(snapshots(storage)) == 1
    storage.collect()
    assert digests(storage) == set()
    assert snapshots(storage) == set()


def test_lease_protects_what_is_found(storage):
    d = write_blob(storage.content, b"old", "text/plain")
    other = write_blob(storage.content, b"other", "text/plain")
    with storage.leases.hold("pull"):
        storage.content.info(d.digest)
        storage.collect()
        assert digests(storage) == {d.digest}
        assert other.digest not in digests(storage)
    storage.collect()
    assert digests(storage) == set()


def test_partials_wait_for_their_time(storage):
    storage.content.ingest("idle").close()
    with storage.content.ingest("busy"):
        assert storage.collect().ingests == 0
        with storage.leases.hold("pull"):
            storage.content.ingest("leased").close()
            assert storage.collect(keep_interrupted_s=0).ingests == 1
        assert {i.ref for i in storage.content.ingests()} == {"busy", "leased"}
        assert storage.collect(keep_interrupted_s=0).ingests == 1
    assert storage.collect(keep_interrupted_s=0).ingests == 1
    assert storage.content.ingests() == []


def test_dead_lease_protects_until_dropped(tmp_path):
    with Storage.open(tmp_path / "root") as first:
        before = write_blob(first.content, b"before", "text/plain")
        first.leases.hold("pull")  # never released: the process dies
        pulled = write_blob(first.content, b"pulled", "text/plain")
    with Storage.open(tmp_path / "root") as second:
        (record,) = second.leases.walk()
        assert record.ended >= record.created
        after = write_blob(second.content, b"after", "text/plain")
        second.collect()
        assert digests(second) == {pulled.digest}
        assert {before.digest, after.digest}.isdisjoint(digests(second))
        assert second.collect(keep_interrupted_s=0).leases == 1
        assert digests(second) == set()
        assert second.leases.walk() == []


def test_dead_lease_expires(tmp_path):
    with Storage.open(tmp_path / "root") as first:
        first.leases.hold("pull", ttl_s=-1)
        write_blob(first.content, b"pulled", "text/plain")
    with Storage.open(tmp_path / "root") as second:
        assert second.leases.walk() == []
        second.collect()
        assert digests(second) == set()


def test_dead_build_step_is_swept(storage):
    _, top = unpacked(storage, "a", [b"base"])
    storage.snapshots.prepare("build:1", top)
    storage.snapshots.prepare("container:1", top)
    with storage.leases.hold("build"):
        storage.snapshots.prepare("build:2", top)
        storage.collect()
        assert snapshots(storage) == {top, "build:2", "container:1"}
    storage.collect()
    assert snapshots(storage) == {top, "container:1"}


def test_collecting_while_pulling(storage):
    """Twelve writers name, look up and rely on shared content while collections run without a pause."""
    stop = threading.Event()
    errors = []

    def sweep():
        while not stop.is_set():
            storage.collect()

    def pull(n):
        try:
            for turn in range(8):
                name = f"image-{n}"
                with storage.leases.hold("pull"):
                    layers = [b"shared", b"shared %d" % (n % 2), b"own %d %d" % (n, turn)]
                    descriptor, config, stored = make_image(storage, "", layers)
                    top = unpack_image(storage, config, stored)
                    storage.images.put(name, descriptor)
                assert top == chain_ids(config.rootfs.diff_ids)[-1]
                storage.snapshots.prepare(f"container:{n}", top)
                for d in (descriptor, *stored):
                    assert storage.content.info(d.digest).size == d.size
                storage.snapshots.remove(f"container:{n}")
                storage.images.delete(name)
        except Exception as e:
            errors.append(e)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    threads = [threading.Thread(target=pull, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    stop.set()
    sweeper.join(60)
    if errors:
        raise errors[0]
    storage.collect()
    assert digests(storage) == set()
    assert snapshots(storage) == set()


@pytest.mark.parametrize("late", [True, False])
def test_image_named_during_a_collection(storage, monkeypatch, late):
    """A name that comes after the marking still saves its content, however old that is."""
    descriptor, _ = unpacked(storage, "", [b"base"])
    walk = storage.images.walk

    def walk_then_name():
        found = list(walk())
        if late:
            storage.images.put("named", descriptor)
        return iter(found)

    monkeypatch.setattr(storage.images, "walk", walk_then_name)
    storage.collect()
    assert len(digests(storage)) == (3 if late else 0)
    assert len(snapshots(storage)) == (1 if late else 0)
