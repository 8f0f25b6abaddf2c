"""Every limit on input: lowered it refuses and says what it is called, raised it admits."""

import gzip
import io
import json
import lzma
import re

import layer_archives as tars
import msgspec
import oci_images
import pytest

from proa.errors import ProaError
from proa.oci import parse_reference
from proa.storage import Limits, Storage
from proa.storage.layers import Unpacker, Workers
from proa.transfer import Registries, Remote, list_tags, load, pull, read_image
from proa.transfer.searching import search

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def workers():
    workers = Workers()
    yield workers
    workers.close()


def sparse(segments):
    """A sparse file of many segments of one byte (PAX 0.1)."""
    places = ",".join(f"{2 * n},1" for n in range(segments)).encode()
    records = [(b"GNU.sparse.map", places), (b"GNU.sparse.size", b"%d" % (2 * segments))]
    return tars.archive(tars.pax(records), tars.member(b"s", data=b"x" * segments))


def zstd(data):
    import zstandard

    parameters = zstandard.ZstdCompressionParameters(window_log=22)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


# What a worker refuses: (setting, too low, high enough, archive).
LAYERS = [
    ("layer_bytes", 5000, 20_000, tars.archive(tars.member(b"f", data=bytes(9000)))),
    ("layer_entries", 2, 3, tars.archive(*[tars.member(b"f%d" % n) for n in range(3)])),
    ("file_bytes", 10, 11, tars.archive(tars.member(b"f", data=b"x" * 11))),
    ("path_bytes", 50, 60, tars.archive(tars.member(b"n" * 60))),
    ("header_bytes", 1000, 3000, tars.archive(tars.pax([(b"comment", b"x" * 2000)]), tars.member(b"f"))),
    ("header_bytes", 1 << 20, 8 << 20, tars.archive(tars.pax([(b"comment", b"x" * (4 << 20))]), tars.member(b"f"))),
    ("sparse_segments", 9, 10, sparse(10)),
    ("expansion", 20, 1100, gzip.compress(tars.archive(tars.member(b"zeros", data=bytes(1 << 20))))),
    ("expansion_floor_bytes", 10_000, 9 << 20, gzip.compress(tars.archive(tars.member(b"zeros", data=bytes(1 << 20))))),
    ("zstd_window_bytes", 1 << 20, 1 << 31, zstd(tars.archive(tars.member(b"f", data=bytes(6 << 20))))),
]


@pytest.mark.parametrize(("setting", "low", "high", "archive"), LAYERS, ids=[f"{c[0]} {c[1]}" for c in LAYERS])
def test_a_layer_in_its_worker(setting, low, high, archive, workers, tmp_path):
    others = {"expansion": {"expansion_floor_bytes": 1000}, "expansion_floor_bytes": {"expansion": 20}}.get(setting, {})

    def unpack(value, name):
        (target := tmp_path / name).mkdir()
        limits = Limits(**{**others, setting: value})
        return Unpacker(workers=workers, budget=limits.layer).unpack(io.BytesIO(archive), "auto", target)

    with pytest.raises(ProaError) as caught:
        unpack(low, "low")
    told = "expansion" if setting.startswith("expansion") else setting.replace("_", "-")
    named(caught.value, told)
    assert unpack(high, "high").entries >= 1


def named(error, setting):
    """The error says what the limit is and how it is raised."""
    assert error.code in ("layer-budget", "too-large"), error
    assert error.fields["setting"] == setting
    assert f"({setting})" in error.message
    assert str(error.fields["limit"]) in error.message
    assert f"`{setting}` in [limits]" in error.hint


def image(layers=1, padding=0):
    return oci_images.Image(
        *[oci_images.tar((f"f{n}", b"x")) for n in range(layers)], config={"Labels": {"padding": "p" * padding}}
    )


def docker_archive(images=1, names=1, layers=1, padding=0):
    made = image(layers, padding)
    config = made.blobs[made.id]
    plain = [oci_images.tar((f"f{n}", b"x")) for n in range(layers)]
    entry = {"Config": "config.json", "RepoTags": [], "Layers": [f"l{n}.tar" for n in range(layers)]}
    entries = [{**entry, "RepoTags": [f"i{n}:t{t}" for t in range(names)]} for n in range(images)]
    documents = [("config.json", config), ("manifest.json", json.dumps(entries).encode())]
    return oci_images.tar(*[(f"l{n}.tar", layer) for n, layer in enumerate(plain)], *documents)


def index_archive(manifests):
    made = image()
    entry = {**made.root, "platform": {"os": "linux", "architecture": "amd64"}}
    others = [{**entry, "platform": {"os": "linux", "architecture": f"a{n}"}} for n in range(manifests - 1)]
    raw = {"schemaVersion": 2, "mediaType": f"{oci_images.OCI}.index.v1+json", "manifests": [entry, *others]}
    made.root = made.add(json.dumps(raw).encode(), raw["mediaType"])
    return made.archive("indexed:1")


XZ = lzma.compress(docker_archive(), preset=6)

ARCHIVES = [
    ("archive_entries", 2, 3, docker_archive()),
    ("archive_images", 1, 2, docker_archive(images=2)),
    ("archive_names", 2, 3, docker_archive(names=3)),
    ("archive_document_bytes", 500, 5000, docker_archive(padding=600)),
    ("config_bytes", 5000, 9000, docker_archive(padding=6000)),
    ("config_bytes", 20_000, 60_000, image(padding=30_000).archive("padded:1")),
    ("manifest_layers", 2, 3, docker_archive(layers=3)),
    ("manifest_layers", 2, 3, image(3).archive("layers:1")),
    ("manifest_bytes", 300, 3000, image(2).archive("manifest:1")),
    ("index_manifests", 3, 4, index_archive(4)),
    ("blob_bytes", 100, 100_000, image().archive("blobs:1")),
    ("path_bytes", 50, 200, image().archive("paths:1")),
    ("xz_memory_bytes", 1 << 20, 1 << 24, XZ),
]


@pytest.mark.parametrize(("setting", "low", "high", "archive"), ARCHIVES, ids=[f"{c[0]} {c[1]}" for c in ARCHIVES])
def test_an_archive_of_images(setting, low, high, archive, tmp_path):
    for value in (low, high):
        with Storage.open(tmp_path / str(value), Limits(**{setting: value})) as storage:
            if value == low:
                with pytest.raises(ProaError) as caught:
                    load(storage, io.BytesIO(archive))
                named(caught.value, setting.replace("_", "-"))
                assert not list(storage.images.walk())
            else:
                assert load(storage, io.BytesIO(archive))


def limited(**limits):
    return Registries(limits=Limits(**limits))


@pytest.mark.parametrize(
    ("setting", "low", "high"),
    [
        ("manifest_bytes", 300, 3000),
        ("config_bytes", 300, 3000),
        ("manifest_layers", 2, 3),
        ("blob_bytes", 100, 100_000),
    ],
)
def test_an_image_of_a_registry(setting, low, high, fake_registry, make_image, open_storage, tmp_path):
    reference = parse_reference(fake_registry(make_image(3, seed="limits")).reference)
    with pytest.raises(ProaError) as caught:
        pull(open_storage("low"), reference, registries=limited(**{setting: low}))
    named(caught.value, setting.replace("_", "-"))
    with Storage.open(tmp_path / "high") as storage:
        kept = pull(storage, reference, registries=limited(**{setting: high}))
    # What was let in stays in use when the limit is lowered.
    with Storage.open(tmp_path / "high", Limits(**{setting: low})) as storage:
        assert storage.collect().blobs == 0
        assert read_image(storage.content, storage.images.get(reference.name).descriptor).descriptor == kept.descriptor


def test_an_index_of_a_registry(start_server, send_reply):
    entry = {"mediaType": f"{oci_images.OCI}.manifest.v1+json", "digest": "sha256:" + "a" * 64, "size": 9}
    kind = f"{oci_images.OCI}.index.v1+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry] * 5}).encode()
    server = start_server(lambda handler, _: send_reply(handler, 200, raw, {"Content-Type": kind}))
    reference = parse_reference(f"{server.host}/proa/index:1")
    for value in (4, 5):
        remote = Remote(reference, registries=limited(index_manifests=value))
        try:
            root = remote.resolve()
            if value == 4:
                with pytest.raises(ProaError) as caught:
                    remote.read(root)
                named(caught.value, "index-manifests")
            else:
                assert remote.read(root) == raw
        finally:
            remote.close()


def test_tokens_and_listings(start_server, send_reply):
    """What a registry says beside images: its token server's answer, tags, the catalog, and anything else."""

    def answer(handler, _):
        path = handler.path.partition("?")[0]
        if path == "/token":
            send_reply(handler, 200, json.dumps({"token": "good", "padding": "p" * 1000}).encode())
        elif not handler.headers.get("Authorization"):
            challenge = {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token",service="s"'}
            send_reply(handler, 401, b"{}", challenge)
        elif path == "/v2/proa/tags/tags/list":
            number = int((re.findall(r"last=t([0-9]+)", handler.path) or ["0"])[0])
            link = {"Link": f'</v2/x?last=t{number + 2}>; rel="next"'} if number < 8 else {}
            send_reply(handler, 200, json.dumps({"tags": [f"t{number}", f"t{number + 1}"]}).encode(), link)
        elif path == "/v2/_catalog":
            number = int((re.findall(r"last=r([0-9]+)", handler.path) or ["0"])[0])
            names = [f"r{number + 1}", f"r{number + 2}"]
            link = {"Link": '</v2/x>; rel="next"'} if number < 8 else {}
            send_reply(handler, 200, json.dumps({"repositories": names}).encode(), link)
        else:
            send_reply(handler, 200 if path == "/v2/" else 404, b"{}" if path == "/v2/" else b"not found")

    server = start_server(answer)
    reference = parse_reference(f"{server.host}/proa/tags:1")

    def tags(**limits):
        remote = Remote(reference, registries=limited(**limits))
        try:
            return list_tags(remote)
        finally:
            remote.close()

    def catalog(**limits):
        return search(server.host, "r", registries=limited(**limits))

    for ask, setting, low, high in (
        (tags, "token_bytes", 1000, 2000),
        (tags, "listing_bytes", 10, 100),
        (catalog, "listing_bytes", 10, 100),
        (tags, "listing_names", 5, 10),
        (catalog, "listing_names", 5, 10),
    ):
        with pytest.raises(ProaError) as caught:
            ask(**{setting: low})
        named(caught.value, setting.replace("_", "-"))
        assert len(ask(**{setting: high})) == 10


def test_any_other_answer(start_server, send_reply):
    server = start_server(lambda handler, _: send_reply(handler, 200, b" " * 5000))
    for value in (4000, 6000):
        remote = Remote(parse_reference(f"{server.host}/proa/any:1"), registries=limited(reply_bytes=value))
        try:
            if value == 4000:
                with pytest.raises(ProaError) as caught:
                    remote.ask("GET", "/anything")
                named(caught.value, "reply-bytes")
            else:
                assert remote.ask("GET", "/anything").status == 200
        finally:
            remote.close()


def test_a_layout_in_a_directory(tmp_path):
    from proa.transfer import Layout

    path = image(3, padding=5000).layout(tmp_path / "layout", "v1")
    for setting, low, high in (("manifest_bytes", 100, 2000), ("manifest_layers", 2, 3), ("blob_bytes", 10, 10_000)):
        root = Layout(path, "v1").resolve()
        with pytest.raises(ProaError) as caught:
            Layout(path, "v1", Limits(**{setting: low})).read(root)
        named(caught.value, setting.replace("_", "-"))
        assert Layout(path, "v1", Limits(**{setting: high})).read(root)


def test_what_users_put_together(tmp_path):
    manifest = image(3).manifest
    raw = json.dumps(manifest).encode()
    for value in (2, 3):
        with Storage.open(tmp_path / str(value), Limits(manifest_layers=value)) as storage:
            if value == 2:
                with pytest.raises(ProaError) as caught:
                    storage.write_document(raw, manifest["mediaType"])
                named(caught.value, "manifest-layers")
                assert not list(storage.content.walk())
            else:
                assert storage.write_document(raw, manifest["mediaType"]).size == len(raw)


def test_every_limit_has_a_case_here_and_a_line_in_the_documentation(request):
    fields = {f.name for f in msgspec.structs.fields(Limits)}
    cases = {c[0] for c in (*LAYERS, *ARCHIVES)} | {"reply_bytes", "token_bytes", "listing_bytes", "listing_names"}
    assert fields == cases
    text = (request.config.rootpath / "docs/reference/limits.md").read_text()
    listed = {m[1]: int(m[2].replace("_", "")) for m in re.finditer(r"^([a-z-]+) = ([0-9_]+)", text, re.MULTILINE)}
    assert listed == {f.name.replace("_", "-"): f.default for f in msgspec.structs.fields(Limits)}
