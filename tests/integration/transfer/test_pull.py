"""Pull from registries: progress, resumption, verification, concurrency, cancellation."""

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from proa.errors import Cancelled, Corrupt, NotFound, ProaError, Unavailable, Unsupported
from proa.oci import Descriptor, Platform, chain_ids, parse_reference
from proa.transfer import Registries, pull, read_image
from proa.transfer import transport as transport_module

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setitem(transport_module.Transport.__init__.__kwdefaults__, "backoff_s", 0.02)


class Lines(list):
    def __call__(self, event):
        self.append(event.to_wire())

    def of(self, name):
        out = [line["status"] for line in self if line.get("id") == name]
        return [s for i, s in enumerate(out) if i == 0 or out[i - 1] != s]

    @property
    def statuses(self):
        return [line.get("status", "") for line in self]


def files_of(storage, chain_id):
    """Names and contents in the directory of a committed snapshot, by way of a view on it."""
    mounts = storage.snapshots.view(f"test-{chain_id}", chain_id)
    try:
        lowers = [o.partition("=")[2] for m in mounts for o in m.options if o.startswith("lowerdir")]
        top = mounts[0].source if mounts[0].type == "bind" else lowers[0].split(":")[0]
        return {p.name: p.read_bytes() for p in Path(top).iterdir()}
    finally:
        storage.snapshots.remove(f"test-{chain_id}")


def assert_nothing_visible(storage, image):
    assert list(storage.images.walk()) == []
    assert not [s for s in storage.snapshots.walk() if s.kind != "committed"]
    assert not [b for b in storage.content.walk() if b.digest not in image.blobs]


def test_pull_names_unpacks_and_tells_like_docker(registry, storage, make_image):
    made = make_image(3, seed="pull")
    reference = parse_reference(registry.put(made, "proa/pull:v1"))
    lines = Lines()
    image = pull(storage, reference, progress=lines)
    assert image.name == reference.name
    assert image.descriptor.digest == made.digest
    assert lines.statuses[0] == "Pulling from proa/pull"
    assert lines[0]["id"] == "v1"
    assert lines.statuses[-2:] == [
        f"Digest: {made.digest}",
        f"Status: Downloaded newer image for {registry.host}/proa/pull:v1",
    ]
    for layer in made.manifest["layers"]:
        told = lines.of(layer["digest"][7:19])
        assert told[0] == "Pulling fs layer"
        assert told[-1] == "Pull complete"
        assert "Download complete" in told
        assert told.index("Download complete") > max([told.index(s) for s in told if s == "Downloading"], default=0)
        assert "Extracting" not in told[: told.index("Download complete")]
    stored = read_image(storage.content, image.descriptor)
    assert files_of(storage, chain_ids(stored.config.rootfs.diff_ids)[-1])["shared"] == b"pull layer 2"

    lines = Lines()
    pull(storage, reference, progress=lines)
    assert [s for s in lines.statuses if s == "Already exists"] == ["Already exists"] * 3
    assert lines.statuses[-1].startswith("Status: Image is up to date for")


def test_zstd_and_plain_layers(registry, storage, make_image):
    for compression in ("zstd", "none"):
        made = make_image(2, compression=compression, seed=compression)
        reference = parse_reference(registry.put(made, f"proa/{compression}:v1"))
        assert pull(storage, reference).descriptor.digest == made.digest


def test_pull_by_digest_is_named_by_digest(registry, storage, make_image):
    made = make_image(1, seed="digest")
    registry.put(made, "proa/digest:v1")
    reference = parse_reference(f"{registry.host}/proa/digest@{made.digest}")
    assert pull(storage, reference).name == f"{registry.host}/proa/digest@{made.digest}"


def test_an_index_gives_this_platform_or_lists_what_there_is(fake_registry, storage, make_image):
    amd, arm = make_image(1, seed="amd"), make_image(1, seed="arm", architecture="arm64")
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {**arm.root, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {**amd.root, "platform": {"os": "linux", "architecture": "amd64"}},
        ],
    }
    fake = fake_registry(amd)
    amd.blobs.update(arm.blobs)
    root = amd.add(json.dumps(index).encode(), index["mediaType"])
    fake.tag = "-"
    fake.override["v1"] = amd.blobs[root["digest"]]
    reference = parse_reference(f"{fake.server.host}/proa/test@{root['digest']}")
    assert pull(storage, reference, platform=Platform(os="linux", architecture="amd64")).descriptor.digest == amd.digest
    image = pull(storage, reference, platform=Platform(os="linux", architecture="arm64"))
    assert image.descriptor.digest == arm.digest
    with pytest.raises(NotFound) as caught:
        pull(storage, reference, platform=Platform(os="linux", architecture="s390x"))
    assert "linux/amd64, linux/arm64/v8" in caught.value.message


def test_a_cut_connection_resumes_where_it_broke(fake_registry, storage, make_image):
    made = make_image(1, size=400_000)
    fake = fake_registry(made)
    fake.cut_after, fake.cuts = 100_000, 2
    assert pull(storage, parse_reference(fake.reference)).descriptor.digest == made.digest
    layer = made.manifest["layers"][0]["digest"]
    ranges = [r for d, r in fake.blob_gets if d == layer]
    assert ranges[0] == ""
    assert len(ranges) == 3
    starts = [int(r[6:-1]) for r in ranges[1:]]
    assert 0 < starts[0] < starts[1]


@pytest.mark.parametrize("at", [1, 2, 511, 4096, -1, -512])
def test_a_cut_at_any_byte_costs_none_twice(fake_registry, storage, make_image, at):
    made = make_image(1, size=40_000)
    fake = fake_registry(made)
    layer = made.manifest["layers"][0]
    fake.cut_after = at % layer["size"]
    blob, cuts = fake.blob, iter([1])

    def cut_the_layer_once(handler, name, data):
        fake.cuts = next(cuts, 0) if name == layer["digest"] else 0
        blob(handler, name, data)

    fake.blob = cut_the_layer_once
    pull(storage, parse_reference(fake.reference))
    assert [r for d, r in fake.blob_gets if d == layer["digest"]] == ["", f"bytes={fake.cut_after}-"]


@pytest.mark.parametrize("downloads", [1, 4])
def test_only_so_many_blobs_move_at_a_time(fake_registry, storage, make_image, downloads):
    made = make_image(8, size=2000)
    fake = fake_registry(made)
    blob, lock, now, most = fake.blob, threading.Lock(), [], []

    def counted(handler, name, data):
        with lock:
            now.append(name)
            most.append(len(now))
        time.sleep(0.05)
        blob(handler, name, data)
        with lock:
            now.remove(name)

    fake.blob = counted
    pull(storage, parse_reference(fake.reference), registries=Registries(downloads=downloads))
    assert max(most) == downloads


def test_a_registrys_warnings_are_told_once(fake_registry, storage, make_image):
    made = make_image(2)
    fake = fake_registry(made)
    said = '299 - "moves to \\"new\\x1b[31m\\" soon", 199 - "not for users", 299 - "second"'.replace("\\x1b", "\x1b")

    def answer(handler, body):
        end = handler.end_headers

        def with_warning():
            handler.send_header("Warning", said)
            end()

        handler.end_headers = with_warning
        fake.answer(handler, body)

    server = type(fake.server)(answer)
    try:
        lines = Lines()
        pull(storage, parse_reference(f"{server.host}/proa/test:v1"), progress=lines)
        assert [s for s in lines.statuses if "Warning" in s] == ['Warning: moves to "new [31m" soon', "Warning: second"]
    finally:
        server.close()


def test_a_server_without_ranges_is_read_again_from_the_start(fake_registry, storage, make_image):
    made = make_image(1, size=400_000)
    fake = fake_registry(made)
    fake.cut_after, fake.cuts, fake.ranges = 100_000, 1, False
    assert pull(storage, parse_reference(fake.reference)).descriptor.digest == made.digest


def test_a_download_that_keeps_breaking_fails_and_the_next_pull_goes_on(fake_registry, storage, make_image):
    made = make_image(1, size=400_000)
    fake = fake_registry(made)
    fake.cut_after, fake.cuts = 5000, 1000
    with pytest.raises(Unavailable):
        pull(storage, parse_reference(fake.reference))
    assert_nothing_visible(storage, made)
    offset = [i.offset for i in storage.content.ingests()]
    assert offset
    assert offset[0] > 0
    fake.cuts = 0
    fake.blob_gets.clear()
    pull(storage, parse_reference(fake.reference))
    layer = made.manifest["layers"][0]["digest"]
    assert (layer, f"bytes={offset[0]}-") in fake.blob_gets


def test_busy_registry_is_asked_again(fake_registry, storage, make_image):
    made = make_image(1)
    fake = fake_registry(made)
    fake.busy, fake.busy_blobs = 2, 3
    assert pull(storage, parse_reference(fake.reference)).descriptor.digest == made.digest


def test_corrupted_layer_is_refused_and_leaves_nothing(fake_registry, storage, make_image):
    made = make_image(2)
    fake = fake_registry(made)
    bad = made.manifest["layers"][1]["digest"]
    data = bytearray(made.blobs[bad])
    data[len(data) // 2] ^= 1
    fake.override[bad] = bytes(data)
    with pytest.raises(Corrupt) as caught:
        pull(storage, parse_reference(fake.reference))
    assert caught.value.code == "digest-mismatch"
    assert bad in caught.value.message
    assert_nothing_visible(storage, made)
    assert not [i for i in storage.content.ingests() if bad in i.ref]
    fake.override.clear()
    assert pull(storage, parse_reference(fake.reference)).descriptor.digest == made.digest


def test_wrong_sizes_are_refused(fake_registry, storage, make_image):
    made = make_image(1)
    layer = made.manifest["layers"][0]["digest"]
    for data in (made.blobs[layer] + b"more", made.blobs[layer][:-1]):
        fake = fake_registry(made)
        fake.override[layer] = data
        with pytest.raises(Corrupt, match="promised"):
            pull(storage, parse_reference(fake.reference))
        assert_nothing_visible(storage, made)


def test_wrong_diff_id_is_refused(fake_registry, storage, image_of, make_image):
    made = make_image(2, seed="honest")
    config = json.loads(made.blobs[made.manifest["config"]["digest"]])
    config["rootfs"]["diff_ids"][1] = "sha256:" + "0" * 64
    manifest = {**made.manifest, "config": made.add(json.dumps(config).encode(), made.manifest["config"]["mediaType"])}
    made.root = made.add(json.dumps(manifest).encode(), made.root["mediaType"])
    fake = fake_registry(made)
    with pytest.raises(Corrupt) as caught:
        pull(storage, parse_reference(fake.reference))
    assert caught.value.code == "diff-id-mismatch"
    assert list(storage.images.walk()) == []


def test_wrong_manifest_bytes_are_refused(fake_registry, storage, make_image):
    made = make_image(1)
    fake = fake_registry(made)
    fake.override[made.digest] = made.blobs[made.digest] + b" "
    with pytest.raises(Corrupt):
        pull(storage, parse_reference(fake.reference))


def test_a_partial_that_went_bad_is_downloaded_again(fake_registry, storage, make_image):
    made = make_image(1, size=100_000)
    fake = fake_registry(made)
    layer = made.manifest["layers"][0]
    expected = Descriptor(media_type=layer["mediaType"], digest=layer["digest"], size=layer["size"])
    with storage.content.ingest(f"blob-{layer['digest']}", expected) as ingest:
        ingest.write(b"rubbish" * 1000)
    assert pull(storage, parse_reference(fake.reference)).descriptor.digest == made.digest


def test_manifest_over_budget_is_refused_without_reading_it(start_server, send_reply, storage):
    def answer(handler, body):
        if handler.path == "/v2/":
            return send_reply(handler, 200)
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json", "Content-Length": str(1 << 40)}
        handler.send_response(200)
        for key, value in kind.items():
            handler.send_header(key, value)
        handler.send_header("Docker-Content-Digest", "sha256:" + "1" * 64)
        handler.end_headers()
        if handler.command == "GET":
            with suppress(OSError):
                for _ in range(200):
                    handler.wfile.write(bytes(1 << 20))
        handler.close_connection = True
        return None

    server = start_server(answer)
    with pytest.raises(ProaError, match="accepted"):
        pull(storage, parse_reference(f"{server.host}/proa/big:v1"))


@pytest.mark.parametrize(
    ("served", "change"),
    [
        ("application/vnd.oci.image.index.v1+json", {}),
        (None, {"manifests": []}),
        (None, {"layers": None}),
        (None, {"config": 5}),
        (None, {"schemaVersion": 1}),
    ],
)
def test_malformed_or_ambiguous_manifests_are_refused(fake_registry, storage, make_image, served, change):
    made = make_image(1)
    manifest = {**made.manifest, **change}
    made.root = made.add(json.dumps(manifest).encode(), made.root["mediaType"])
    fake = fake_registry(made)
    fake.served_type = served
    with pytest.raises(ProaError):
        pull(storage, parse_reference(fake.reference))
    assert list(storage.images.walk()) == []


def test_an_artifact_is_no_image(fake_registry, storage, make_image):
    made = make_image(1)
    made.manifest["layers"][0]["mediaType"] = "application/vnd.example.chart+json"
    made.root = made.add(json.dumps(made.manifest).encode(), made.root["mediaType"])
    with pytest.raises(Unsupported, match="no container image"):
        pull(storage, parse_reference(fake_registry(made).reference))


def test_many_pulls_download_each_blob_once(fake_registry, storage, make_image):
    made = make_image(3, size=200_000)
    fake = fake_registry(made)
    fake.delay_s = 0.1
    errors = []

    def one():
        try:
            pull(storage, parse_reference(fake.reference))
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not errors
    layers = {d["digest"] for d in made.manifest["layers"]}
    assert {d: fake.sent[d] for d in layers} == dict.fromkeys(layers, 1)


def test_cancel_is_prompt_and_leaves_a_partial_to_resume(start_server, fake_registry, storage, make_image):
    made = make_image(2, size=300_000)
    fake = fake_registry(made)
    stall = threading.Event()
    good = fake.blob

    def slow(handler, name, data):
        if name != made.manifest["layers"][1]["digest"]:
            return good(handler, name, data)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:150_000])
        handler.wfile.flush()
        stall.wait(30)
        handler.close_connection = True
        return None

    fake.blob = slow
    stopped = threading.Event()
    threading.Timer(0.5, stopped.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        pull(storage, parse_reference(fake.reference), stopped=stopped)
    assert time.monotonic() - begun < 5
    stall.set()
    assert list(storage.images.walk()) == []
    first = made.manifest["layers"][0]["digest"]
    assert storage.content.info(first).digest == first
    assert [i.offset for i in storage.content.ingests()] == [pytest.approx(150_000, abs=150_000)]
    fake.blob = good
    fake.blob_gets.clear()
    pull(storage, parse_reference(fake.reference))
    assert first not in [d for d, _ in fake.blob_gets]


def test_when_the_pull_that_downloads_is_cancelled_another_goes_on(fake_registry, storage, make_image):
    made = make_image(1, size=300_000)
    fake = fake_registry(made)
    layer = made.manifest["layers"][0]["digest"]
    stall, good, begun = threading.Event(), fake.blob, threading.Event()

    def slow(handler, name, data):
        if name != layer or begun.is_set():
            return good(handler, name, data)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:100_000])
        handler.wfile.flush()
        begun.set()
        stall.wait(30)
        handler.close_connection = True
        return None

    fake.blob = slow
    stopped = threading.Event()
    outcomes = {}

    def run(name, stop):
        try:
            outcomes[name] = pull(storage, parse_reference(fake.reference), stopped=stop).descriptor.digest
        except ProaError as e:
            outcomes[name] = e.kind

    first = threading.Thread(target=run, args=("first", stopped))
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=run, args=("second", None))
    second.start()
    time.sleep(0.3)
    stopped.set()
    first.join(20)
    second.join(20)
    stall.set()
    assert outcomes == {"first": "cancelled", "second": made.digest}
    assert [r for d, r in fake.blob_gets if d == layer] != [""]  # it resumed


def test_mirror_first_then_the_registry(fake_registry, storage, make_image):
    made = make_image(2)
    mirror, own = fake_registry(make_image(1, seed="other"), repository="proa/none"), fake_registry(made)
    reference = parse_reference(own.reference)
    pull(storage, reference, registries=Registries(mirrors={reference.registry: (mirror.server.host,)}))
    assert any("/manifests/" in path for _, path, _ in mirror.server.asked)

    whole = fake_registry(made)
    own.server.asked.clear()
    storage.images.delete(reference.name)
    storage.collect()
    pull(storage, reference, registries=Registries(mirrors={reference.registry: (f"http://{whole.server.host}",)}))
    assert not [path for _, path, _ in own.server.asked if "/blobs/" in path or "/manifests/" in path]


def test_a_name_that_moves_leaves_the_old_image_under_its_digest(registry, storage, make_image):
    old, new = make_image(1, seed="old"), make_image(1, seed="new")
    reference = parse_reference(registry.put(old, "proa/moves:v1"))
    pull(storage, reference)
    registry.put(new, "proa/moves:v1")
    pull(storage, reference)
    assert {i.name: i.descriptor.digest for i in storage.images.walk()} == {
        reference.name: new.digest,
        old.digest: old.digest,
    }
