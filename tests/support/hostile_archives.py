"""Hostile archives of images: what `load` is given when somebody wants to harm the machine, as (name, bytes).

Layers that are hostile in themselves come from hostile_layers, wrapped into an image. The rest is wrong one level up:
documents that lie, members that are no files, streams that explode. Each must be refused, with a reason.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from typing import Any

import zstandard
from hostile_layers import cases as layer_cases
from layer_archives import archive, gnu_long, hard_link, member, pax, symlink
from oci_images import OCI, Image, digest, tar

GOOD = tar(("file", b"content"))
MANIFEST, INDEX = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json"


def layers(canary: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """(name, archive, whether it may be loaded: contained) of each hostile layer."""
    for number, case in enumerate(layer_cases(canary)):
        image = Image(case.data, how=("none", "gzip", "zstd")[number % 3])
        yield f"layer: {case.name}", image.archive(f"docker.io/hostile/layer:{number}"), case.code is None


def _layout(blobs: dict[str, bytes], manifests: list[dict[str, Any]], *more: tuple[str, bytes]) -> bytes:
    return tar(
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()),
        *((f"blobs/{key.replace(':', '/')}", data) for key, data in blobs.items()),
        *more,
    )


def _document(raw: bytes, media_type: str = MANIFEST, image: Image | None = None) -> bytes:
    """An archive whose root document is `raw`."""
    blobs = {**(image or Image(GOOD)).blobs, digest(raw): raw}
    return _layout(blobs, [{"mediaType": media_type, "digest": digest(raw), "size": len(raw)}])


def _altered(**changes: Any) -> bytes:
    """A good image with members of its manifest replaced."""
    image = Image(GOOD)
    return _document(json.dumps({**image.manifest, **changes}).encode(), image=image)


def _configured(config: Any) -> bytes:
    """A good image with another config."""
    image = Image(GOOD)
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    manifest = {**image.manifest, "config": image.add(raw, f"{OCI}.config.v1+json")}
    return _document(json.dumps(manifest).encode(), image=image)


def _docker(entries: Any, *files: tuple[str, bytes]) -> bytes:
    return tar(*files, ("manifest.json", json.dumps(entries).encode()))


def documents() -> Iterator[tuple[str, bytes]]:
    """Archives that must be refused."""
    image = Image(GOOD)
    layer = image.manifest["layers"][0]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(GOOD)]}}
    raw_config = json.dumps(config).encode()
    good_docker = {"Config": "c.json", "RepoTags": None, "Layers": ["l.tar"]}
    files = (("c.json", raw_config), ("l.tar", GOOD))

    yield "nothing at all", b""
    yield "zeros", bytes(10240)
    yield "text", b"This is no archive.\n" * 600
    yield "an archive without images", tar(("README", b"hello"))
    yield "cut in the middle", image.archive("x:1")[:1500]
    yield "blob that is another", _layout({**image.blobs, layer["digest"]: b"other"}, [image.root])
    other = Image(tar(("other", b"content")))
    lacking = {k: v for k, v in other.blobs.items() if k != other.manifest["layers"][0]["digest"]}
    yield "blob that is missing", _layout(lacking, [other.root])
    yield "manifest that is missing", _layout({k: v for k, v in image.blobs.items() if k != image.digest}, [image.root])
    yield "manifest and index in one", _altered(manifests=[image.root])
    yield "manifest announced as an index", _document(json.dumps(image.manifest).encode(), INDEX)
    yield "index announced as a manifest", _document(b'{"schemaVersion":2,"manifests":[]}')
    yield "manifest that says it is an index", _altered(mediaType=INDEX)
    yield "schema 1", _altered(schemaVersion=1)
    yield "layer of an unknown type", _altered(layers=[{**layer, "mediaType": "application/x-sh"}])
    yield "layer that is the config", _altered(layers=[image.manifest["config"]])
    yield "config that is the layer", _altered(config={**layer, "mediaType": f"{OCI}.config.v1+json"})
    yield "layer shorter than said", _altered(layers=[{**layer, "size": layer["size"] + 1}])
    yield "layer of a negative size", _altered(layers=[{**layer, "size": -1}])
    yield "layer of an exabyte", _altered(layers=[{**layer, "size": 1 << 60}])
    yield "layer of fractions", _altered(layers=[{**layer, "size": 10.5}])
    yield "layers that are no list", _altered(layers={"0": layer})
    yield "no layers member", _document(json.dumps({k: v for k, v in image.manifest.items() if k != "layers"}).encode())
    yield "5,000 layers", _altered(layers=[layer] * 5000)
    yield "more layers than diff_ids", _altered(layers=[layer, layer])
    for name, bad in (
        ("a path", "sha256:../../../../etc/passwd"),
        ("upper case", layer["digest"].upper()),
        ("md5", "md5:" + "0" * 32),
        ("newline", layer["digest"] + "\n"),
        ("number", 5),
        ("Arabic digits", "sha256:" + "\u0661" * 64),
    ):
        yield f"digest: {name}", _altered(layers=[{**layer, "digest": bad}])
    yield "diff_id of something else", _configured({**config, "rootfs": {"type": "layers", "diff_ids": [digest(b"x")]}})
    yield "diff_id that is a path", _configured({**config, "rootfs": {"type": "layers", "diff_ids": ["../x"]}})
    yield "config without rootfs", _configured({"os": "linux"})
    yield "config that is a list", _configured([config])
    yield "config of 9 MiB", _configured({**config, "author": "x" * (9 << 20)})
    yield "config for another system", _configured({**config, "os": "plan9"})
    yield "config with a key twice", _configured(b'{"os":"linux",' + raw_config[1:])
    yield "config with NaN", _configured(b'{"size":NaN,' + raw_config[1:])
    yield "config of infinite depth", _configured(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + raw_config[1:])
    yield "config with a huge number", _configured(b'{"x":' + b"9" * 100_000 + b"," + raw_config[1:])
    yield "config with a lone surrogate", _configured(b'{"author":"\\ud800",' + raw_config[1:])
    yield "config that is not UTF-8", _configured(b'{"author":"\xff",' + raw_config[1:])
    yield "manifest of 5 MiB", _altered(annotations={"x": "y" * (5 << 20)})
    yield "index of 2,000 images", _layout(image.blobs, [image.root] * 2000)
    yield (
        "index inside an index",
        _document(json.dumps({"schemaVersion": 2, "manifests": [{**image.root, "mediaType": INDEX}]}).encode(), INDEX),
    )
    yield "tag that goes up", image.archive("../../../etc/passwd")
    yield "tag with a newline", image.archive("docker.io/a/b:1\nroot::0:0")
    yield "docker: config outside", _docker([{**good_docker, "Config": "../../etc/passwd"}], *files)
    yield "docker: config absolute", _docker([{**good_docker, "Config": "/etc/passwd"}], *files)
    yield "docker: layer outside", _docker([{**good_docker, "Layers": ["../l.tar"]}], *files)
    yield "docker: layer missing", _docker([{**good_docker, "Layers": ["m.tar"]}], *files)
    yield "docker: layer that is the config", _docker([{**good_docker, "Layers": ["c.json"]}], *files)
    yield "docker: no list", _docker({"Config": "c.json"}, *files)
    yield "docker: tag that is a number", _docker([{**good_docker, "RepoTags": [5]}], *files)
    yield "docker: tag that goes up", _docker([{**good_docker, "RepoTags": ["../../x:1"]}], *files)
    yield "docker: 2,000 images", _docker([good_docker] * 2000, *files)
    manifest = member(b"manifest.json", data=json.dumps([good_docker]).encode())
    parts = (member(b"c.json", data=raw_config), manifest)
    yield "member outside", archive(member(b"../l.tar", data=GOOD), *parts)
    yield "member at an absolute path", archive(member(b"/l.tar", data=GOOD), *parts)
    yield "member with a newline", archive(member(b"l\n.tar", data=GOOD), *parts)
    yield "member that is not UTF-8", archive(member(b"\xff.tar", data=GOOD), *parts)
    yield "member with a name of 10,000 bytes", archive(gnu_long(b"a/" * 5000), member(b"x"), *parts)
    yield "member that is a link out", archive(symlink(b"l.tar", b"/etc/passwd"), *parts)
    yield "member that is a hard link", archive(hard_link(b"l.tar", b"/etc/passwd"), *parts)
    yield "member that is a device", archive(member(b"l.tar", b"3", major=1, minor=5), *parts)
    yield "member that is a fifo", archive(member(b"l.tar", b"6"), *parts)
    yield "member twice", archive(member(b"l.tar", data=GOOD), member(b"l.tar", data=GOOD), *parts)
    yield (
        "link in a circle",
        archive(
            *(
                symlink(b"%b/layer.tar" % (c * 64), b"../%b/layer.tar" % (d * 64))
                for c, d in ((b"a", b"b"), (b"b", b"a"))
            ),
            member(b"c.json", data=raw_config),
            member(b"manifest.json", data=json.dumps([{**good_docker, "Layers": ["a" * 64 + "/layer.tar"]}]).encode()),
        ),
    )
    yield "25,000 members", archive(*(member(b"m%d" % n) for n in range(25_000)))
    yield "document of 1 GiB", archive(pax([(b"size", b"%d" % (1 << 30))]), member(b"index.json"), end=b"")
    # ---- bombs; each member or frame is small and packed once, and there are many
    zeros = bytes(16 << 20)
    yield "gzip layer of 8 GiB", _packed_layer(gzip.compress(zeros, 9, mtime=0) * 512, "gzip")
    yield "zstd layer of 64 GiB", _packed_layer(zstandard.compress(zeros, 19) * 4096, "zstd")
    window = zstandard.ZstdCompressionParameters(window_log=27)
    held = zstandard.ZstdCompressor(compression_params=window).compressobj()
    yield "zstd layer with a window of 128 MiB", _packed_layer(held.compress(zeros) + held.flush(), "zstd")
    first = archive(member(b"l.tar", size=b"%011o\0" % (7 << 30)), end=b"")
    yield "gzip archive of 8 GiB", gzip.compress(first, mtime=0) + gzip.compress(zeros, 9, mtime=0) * 512
    yield "zstd archive of 64 GiB", zstandard.compress(first) + zstandard.compress(zeros, 19) * 4096
    yield "bzip2 archive of 8 GiB", bz2.compress(first) + bz2.compress(zeros) * 512
    yield "xz archive of 8 GiB", lzma.compress(first) + lzma.compress(zeros) * 512
    large = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    yield "xz archive with a dictionary of 1 GiB", lzma.compress(image.archive("x:1"), filters=large)
    stored = zlib.compressobj(0, wbits=31)
    endless = stored.compress(b"x" * 1000)
    yield "gzip header without end", endless[:3] + b"\x08" + endless[4:10] + b"n" * (1 << 20)


def _packed_layer(packed: bytes, compression: str) -> bytes:
    """An image whose layer is these compressed bytes, whatever they hold."""
    image = Image(GOOD, diff_ids=[digest(packed)])
    manifest = {**image.manifest, "layers": [image.add(packed, f"{OCI}.layer.v1.tar+{compression}")]}
    return _document(json.dumps(manifest).encode(), image=image)
