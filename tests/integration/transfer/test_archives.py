"""Load, save and import: what other engines write and read, and what hostile archives try."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import subprocess
import tarfile

import pytest

from proa.errors import Corrupt, Invalid, NotFound, ProaError
from proa.oci import RunConfig, chain_ids, parse_reference
from proa.transfer import import_tar, load, pull, read_image, save

pytestmark = pytest.mark.root


def skopeo(*args):
    done = subprocess.run(["/usr/bin/skopeo", *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Messages(list):
    def __call__(self, event):
        if event.message:
            self.append(event.message)


def tar_of(members):
    """An archive of (name, bytes) files, or of TarInfo objects as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                tar.addfile(entry, io.BytesIO(member[1]))
    return out.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def docker_members(made, tags=("proa/saved:v1",), layer_names=None):
    """What docker save of before version 25 writes."""
    names = layer_names or [f"{hashlib.sha256(d.encode()).hexdigest()}/layer.tar" for d in made.diff_ids]
    config = made.manifest["config"]["digest"][7:] + ".json"
    entries = [{"Config": config, "RepoTags": list(tags) or None, "Layers": names}]
    layers = dict(zip(names, made.layers, strict=True))
    return [
        *((f"{name.rpartition('/')[0]}/VERSION", b"1.0") for name in layers if "/" in name),
        *layers.items(),
        (config, made.blobs[made.manifest["config"]["digest"]]),
        ("manifest.json", json.dumps(entries).encode()),
        ("repositories", b"{}"),
    ]


def test_docker_save_of_old(storage, make_image):
    made = make_image(3, seed="docker")
    messages = Messages()
    images = load(storage, io.BytesIO(tar_of(docker_members(made))), messages)
    assert [i.name for i in images] == ["docker.io/proa/saved:v1"]
    assert messages == ["Loaded image: proa/saved:v1\n"]
    found = read_image(storage.content, images[0].descriptor)
    assert found.manifest.config.digest == made.manifest["config"]["digest"]
    assert [d.digest for d in found.manifest.layers] == made.diff_ids
    assert storage.snapshots.stat(chain_ids(found.config.rootfs.diff_ids)[-1]).kind == "committed"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives(storage, make_image, pack):
    made = make_image(1, seed="packed")
    images = load(storage, io.BytesIO(pack(tar_of(docker_members(made)))))
    assert images[0].name == "docker.io/proa/saved:v1"


def test_repeated_layers_are_links(storage, image_of, make_image):
    one = make_image(1, seed="twice").layers[0]
    made = image_of([one, one])
    first, second = "a" * 64, "b" * 64
    names = [f"{first}/layer.tar", f"{second}/layer.tar"]
    members = [m for m in docker_members(made, layer_names=names) if m[0] != names[1]]
    members.insert(0, link(names[1], f"../{first}/layer.tar"))
    assert load(storage, io.BytesIO(tar_of(members)))


def test_large_first_layer_is_unpacked_early_and_kept(storage, make_image):
    made = make_image(1, size=3_000_000, seed="early")
    images = load(storage, io.BytesIO(tar_of(docker_members(made))))
    assert storage.snapshots.stat(made.diff_ids[0]).kind == "committed"
    assert [s.kind for s in storage.snapshots.walk()] == ["committed"]
    again = load(storage, io.BytesIO(tar_of(docker_members(made))))
    assert [i.descriptor for i in again] == [i.descriptor for i in images]

    upper_first = make_image(2, size=3_000_000, seed="late")
    members = docker_members(upper_first)
    layers = [m for m in members if m[0].endswith("layer.tar")]
    members = [layers[1], layers[0], *(m for m in members if m not in layers)]
    load(storage, io.BytesIO(tar_of(members)))
    assert {s.kind for s in storage.snapshots.walk()} == {"committed"}
    assert len(list(storage.snapshots.walk())) == 3


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_skopeo_writes_and_proa_loads(storage, make_image, tmp_path, transport):
    made = make_image(2, seed=transport)
    layout = made.write(tmp_path / "in")
    skopeo("copy", f"oci:{layout}:latest", f"{transport}:{tmp_path}/a.tar:example.org/proa/x:v1")
    with open(tmp_path / "a.tar", "rb") as f:
        images = load(storage, f)
    assert [i.name for i in images] == ["example.org/proa/x:v1"]
    found = read_image(storage.content, images[0].descriptor)
    assert found.config.rootfs.diff_ids == made.diff_ids
    if transport == "oci-archive":
        assert images[0].descriptor.digest == made.digest


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_others_read_what_save_writes(registry, storage, make_image, tmp_path, compression):
    made = make_image(2, compression=compression, seed=f"save {compression}")
    reference = parse_reference(registry.put(made, f"proa/save-{compression}:v1"))
    pull(storage, reference)
    path = tmp_path / "saved.tar"
    with open(path, "wb") as f:
        save(storage, [reference.name], f)
    with open(tmp_path / "again.tar", "wb") as f:
        save(storage, [reference.name], f)
    assert path.read_bytes() == (tmp_path / "again.tar").read_bytes()

    skopeo("copy", "--preserve-digests", f"oci-archive:{path}", f"oci:{tmp_path}/from-oci:v1")
    index = json.loads((tmp_path / "from-oci/index.json").read_text())
    assert index["manifests"][0]["digest"] == made.digest
    skopeo("copy", f"docker-archive:{path}", f"oci:{tmp_path}/from-docker:v1")
    index = json.loads((tmp_path / "from-docker/index.json").read_text())
    raw = (tmp_path / "from-docker/blobs/sha256" / index["manifests"][0]["digest"][7:]).read_bytes()
    config = (tmp_path / "from-docker/blobs/sha256" / json.loads(raw)["config"]["digest"][7:]).read_bytes()
    assert json.loads(config)["rootfs"]["diff_ids"] == made.diff_ids
    assert reference.familiar in skopeo("list-tags", f"docker-archive:{path}")

    with tarfile.open(path) as tar:
        assert tar.getnames()[:3] == ["oci-layout", "index.json", "manifest.json"]
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "layout", "-xf", path], check=True)
    unpacked = subprocess.run(
        ["/usr/bin/umoci", "unpack", "--image", f"{tmp_path}/layout:{reference.name}", f"{tmp_path}/bundle"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if compression != "zstd":  # umoci of Debian 12 knows no zstd
        assert unpacked.returncode == 0, unpacked.stderr
        assert (tmp_path / "bundle/rootfs/shared").read_bytes() == f"save {compression} layer 1".encode()


def test_save_then_load_keeps_digests_and_names(registry, open_storage, make_image, tmp_path):
    storage, other = open_storage(), open_storage("other")
    references = []
    for n in range(2):
        references.append(parse_reference(registry.put(make_image(2, seed=f"multi {n}"), f"proa/multi{n}:v1")))
        pull(storage, references[-1])
    storage.images.put("docker.io/library/alias:v1", storage.images.get(references[0].name).descriptor)
    names = [references[0].name, references[1].name, "docker.io/library/alias:v1"]
    with open(tmp_path / "a.tar", "wb") as f:
        save(storage, names, f)
    with open(tmp_path / "a.tar", "rb") as f:
        loaded = load(other, f)
    assert {i.name: i.descriptor.digest for i in loaded} == {n: storage.images.get(n).descriptor.digest for n in names}


def test_unnamed_images_keep_their_id(open_storage, make_image):
    made = make_image(1, seed="unnamed")
    storage = open_storage()
    messages = Messages()
    image = load(storage, io.BytesIO(tar_of(docker_members(made, tags=()))), messages)[0]
    assert image.name == image.descriptor.digest
    assert messages == [f"Loaded image ID: {made.manifest['config']['digest']}\n"]
    out = io.BytesIO()
    save(storage, [image.name], out)
    assert load(open_storage("other"), io.BytesIO(out.getvalue()))[0].name == image.descriptor.digest


def test_a_name_that_moves_is_told(storage, make_image):
    old = make_image(1, seed="first")
    load(storage, io.BytesIO(tar_of(docker_members(old))))
    messages = Messages()
    load(storage, io.BytesIO(tar_of(docker_members(make_image(1, seed="second")))), messages)
    id_ = old.manifest["config"]["digest"]
    assert (
        messages[0] == f"The image proa/saved:v1 already exists, renaming the old one with ID {id_} to empty string\n"
    )
    assert len(list(storage.images.walk())) == 2


def test_save_of_nothing_writes_nothing(storage):
    out = io.BytesIO()
    with pytest.raises(NotFound):
        save(storage, ["docker.io/library/none:latest"], out)
    assert out.getvalue() == b""


H = "c" * 64


def hostile_archives(made):
    good = docker_members(made)
    config_name = made.manifest["config"]["digest"][7:] + ".json"
    layers = [m[0] for m in good if m[0].endswith("layer.tar")]

    def manifest(**change):
        entry = {"Config": config_name, "RepoTags": ["x:v1"], "Layers": layers, **change}
        return [m for m in good if m[0] != "manifest.json"] + [("manifest.json", json.dumps([entry]).encode())]

    return {
        "member goes up": [*good, ("../../evil", b"x")],
        "member goes up inside": [*good, ("a/../../evil", b"x")],
        "member is absolute": [*good, ("/etc/evil", b"x")],
        "odd name": [*good, ("a\nb", b"x")],
        "config goes up": manifest(Config="../../etc/passwd"),
        "config is absolute": manifest(Config="/etc/passwd"),
        "config goes round": manifest(Config=f"a/../{config_name}"),
        "layer is absolute": manifest(Layers=["/etc/passwd"]),
        "layer is a document": manifest(Layers=[config_name]),
        "config is a number": manifest(Config=5),
        "layers are numbers": manifest(Layers=[1]),
        "layers are missing": manifest(Layers=None),
        "tag is hostile": manifest(RepoTags=["../../x:v1"]),
        "tag is a number": manifest(RepoTags=[5]),
        "too many tags": manifest(RepoTags=[f"x:v{i}" for i in range(1000)]),
        "manifest is no list": [*good[:-2], ("manifest.json", b"{}")],
        "manifest has a key twice": [*good[:-2], ("manifest.json", b'[{"Config":"a","Config":"b","Layers":[]}]')],
        "symlink to a host file": [link("manifest.json", "/etc/passwd"), *good[:-2]],
        "symlinked layer": [link(f"{H}/layer.tar", "../../../etc/passwd"), *good],
        "symlinked directory": [link("blobs", "/etc"), *good],
        "hard link": [*good, link("x", "manifest.json", tarfile.LNKTYPE)],
        "device": [*good, link("x", "", tarfile.CHRTYPE)],
        "fifo": [link("index.json", "", tarfile.FIFOTYPE), *good],
        "link loop": [link(f"{H}/layer.tar", f"../{H}/layer.tar"), *manifest(Layers=[f"{H}/layer.tar"])],
        "member twice": [*good, good[-1]],
        "no image": [("hello.txt", b"hello")],
        "empty": [],
        "blob that lies": [(f"blobs/sha256/{H}", b"not c"), *good],
    }


def names_of_archives():
    class Nothing:
        manifest = {"config": {"digest": "sha256:" + "0" * 64}}  # noqa: RUF012
        diff_ids, layers, blobs = (), (), {"sha256:" + "0" * 64: b""}

    return sorted(hostile_archives(Nothing()))


@pytest.mark.parametrize("case", names_of_archives())
def test_hostile_archives_are_refused_and_leave_nothing(storage, make_image, case, tmp_path):
    made = make_image(1, size=200, seed="hostile")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ProaError) as caught:
        load(storage, io.BytesIO(tar_of(hostile_archives(made)[case])))
    assert caught.value.kind in ("invalid", "not-found", "corrupt", "exhausted")
    assert list(storage.images.walk()) == []
    assert storage.content.ingests() == []
    assert not [p for p in set(tmp_path.rglob("*")) - before if not p.is_relative_to(tmp_path / "root")]


def test_wrong_and_truncated_layers_are_refused(storage, make_image):
    made = make_image(1, size=3_000_000, seed="bad")
    members = docker_members(made)
    at = next(i for i, m in enumerate(members) if m[0].endswith("layer.tar"))
    wrong = list(members)
    wrong[at] = (members[at][0], members[at][1][:1000] + b"!" + members[at][1][1001:])
    with pytest.raises(Corrupt, match="the image config says"):
        load(storage, io.BytesIO(tar_of(wrong)))
    whole = tar_of(members)
    with pytest.raises(Corrupt):
        load(storage, io.BytesIO(whole[: len(whole) // 2]))
    with pytest.raises(ProaError):
        load(storage, io.BytesIO(gzip.compress(whole)[:-500_000]))
    assert list(storage.images.walk()) == []
    assert storage.content.ingests() == []
    assert list(storage.snapshots.walk()) == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_import(storage, make_image, pack):
    tar = make_image(1, seed="import").layers[0]
    statuses = []
    reference = parse_reference("proa/imported:v1")
    image = import_tar(
        storage,
        io.BytesIO(pack(tar)),
        reference,
        changes_config=RunConfig(cmd=["/bin/sh"], env=["A=1"]),
        message="made here",
        progress=lambda e: statuses.append(e.status),
    )
    assert image.name == "docker.io/proa/imported:v1"
    found = read_image(storage.content, image.descriptor)
    assert found.config.rootfs.diff_ids == ["sha256:" + hashlib.sha256(tar).hexdigest()]
    assert found.config.config.cmd == ["/bin/sh"]
    assert found.config.history[0].comment == "made here"
    assert statuses[-1] == found.manifest.config.digest
    assert storage.snapshots.stat(found.config.rootfs.diff_ids[0]).kind == "committed"
    assert import_tar(storage, io.BytesIO(tar)).name.startswith("sha256:")


def test_import_of_rubbish_leaves_nothing(storage):
    for data in (b"rubbish" * 1000, gzip.compress(b"x" * 10_000), b"\x1f\x8bnot gzip"):
        with pytest.raises((Invalid, Corrupt)):
            import_tar(storage, io.BytesIO(data))
    assert list(storage.images.walk()) == []
    assert storage.content.ingests() == []
    assert list(storage.snapshots.walk()) == []
