from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Corrupt, Invalid, NotFound, Unsupported
from proa.oci import (
    Descriptor,
    Digest,
    Platform,
    Verifier,
    chain_ids,
    children,
    digest_hex,
    digest_of,
    encode,
    media_types,
    parse_config,
    parse_digest,
    parse_index,
    parse_manifest,
    select_platform,
)
from proa.oci.documents import MAX_LAYERS, MAX_MANIFESTS, check_config

D = [f"sha256:{n:064x}" for n in range(5)]
CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": D[0], "size": 2}
LAYER = {"mediaType": media_types.OCI_LAYER_GZIP, "digest": D[1], "size": 3}


def manifest(**changes: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
    return json.dumps({k: v for k, v in {**document, **changes}.items() if v is not ...}).encode()


def index(*manifests: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": manifests, **changes}).encode()


def entry(number: int, platform: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    out = {"mediaType": media_types.OCI_MANIFEST, "digest": D[number], "size": 1, **more}
    return out if platform is None else {**out, "platform": platform}


def test_a_manifest() -> None:
    found = parse_manifest(manifest(annotations={"a": "b"}, unknown=1), media_types.OCI_MANIFEST)
    assert (found.config.digest, [layer.size for layer in found.layers]) == (D[0], [3])
    assert found.annotations == {"a": "b"}
    assert parse_manifest(manifest(mediaType=..., layers=[], annotations=None)).layers == []


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        manifest(config=...),
        manifest(layers=...),
        manifest(config=None),
        manifest(schemaVersion="2"),
        manifest(mediaType=media_types.OCI_INDEX),
        manifest(mediaType="text/plain"),
        manifest(manifests=[]),  # both at once means two images by one digest
        manifest(layers=[{**LAYER, "size": -1}]),
        manifest(layers=[{**LAYER, "size": 1 << 51}]),
        manifest(layers=[{**LAYER, "size": "3"}]),
        manifest(layers=[{**LAYER, "digest": "sha256:short"}]),
        manifest(layers=[{**LAYER, "digest": "../../etc/passwd"}]),
        manifest(layers=[{**LAYER, "digest": None}]),
        manifest(config={**CONFIG, "digest": D[0].upper()}),
        manifest(layers=[LAYER] * (MAX_LAYERS + 1)),
    ],
)
def test_what_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_manifest(raw, media_types.OCI_MANIFEST)


def test_one_digest_does_not_mean_two_things() -> None:
    with pytest.raises(Invalid, match="was served as"):
        parse_manifest(manifest(), media_types.DOCKER_MANIFEST)
    with pytest.raises(Invalid):
        parse_index(manifest())
    with pytest.raises(Invalid):
        parse_manifest(index())
    with pytest.raises(Invalid):
        parse_index(index(layers=[]))


def test_schema_1_is_refused_with_advice() -> None:
    with pytest.raises(Unsupported, match="push the image again"):
        parse_manifest(json.dumps({"schemaVersion": 1, "fsLayers": []}).encode())


def test_children() -> None:
    of_manifest = Descriptor(media_types.OCI_MANIFEST, Digest(D[2]), 1)
    assert [d.digest for d in children(of_manifest, manifest(subject=entry(3, None)))] == [D[0], D[1]]
    of_index = Descriptor(media_types.DOCKER_LIST, Digest(D[2]), 1)
    assert [d.digest for d in children(of_index, index(entry(3, None)))] == [D[3]]
    assert children(Descriptor(media_types.OCI_LAYER, Digest(D[2]), 1), b"\x1f\x8b") == []


def test_too_many_manifests() -> None:
    with pytest.raises(Invalid):
        parse_index(index(*[entry(1, None)] * (MAX_MANIFESTS + 1)))


def test_a_config() -> None:
    raw = {
        "architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1",
        "config": {"Cmd": None, "Env": ["A=b"], "Healthcheck": {"Test": ["NONE"]}, "Memory": 3},
        "rootfs": {"type": "layers", "diff_ids": [D[1]]}, "history": [{"created_by": "x", "empty_layer": True}],
    }  # fmt: skip
    config = parse_config(json.dumps(raw).encode())
    assert (str(config.platform), config.os_version) == ("linux/arm64/v8", "1")
    assert config.config is not None
    assert (config.config.cmd, config.config.env) == (None, ["A=b"])
    check_config(parse_manifest(manifest()), config)
    with pytest.raises(Corrupt, match="1 diff_ids for 2 layers"):
        check_config(parse_manifest(manifest(layers=[LAYER, LAYER])), config)
    for change in ({"rootfs": None}, {"rootfs": {"diff_ids": ["x"]}}, {"config": {"Env": "A"}}, {"history": 1}):
        with pytest.raises(Invalid):
            parse_config(json.dumps({**raw, **change}).encode())


def test_encode_leaves_out_what_is_not_set() -> None:
    document = json.loads(encode(parse_manifest(manifest())))
    assert document == json.loads(manifest())


def test_chain_ids_are_those_of_the_specification() -> None:
    a, b, c = (digest_of(x) for x in (b"a", b"b", b"c"))
    ab = "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()
    abc = "sha256:" + hashlib.sha256(f"{ab} {c}".encode()).hexdigest()
    assert chain_ids([a, b, c]) == [a, ab, abc]
    assert chain_ids([]) == []


ARM = {"os": "linux", "architecture": "arm64"}
AMD = {"os": "linux", "architecture": "amd64"}


def test_the_platform_is_selected() -> None:
    found = parse_index(
        index(
            entry(0, AMD, annotations={"vnd.docker.reference.type": "attestation-manifest"}),
            entry(1, {"os": "windows", "architecture": "amd64", "os.version": "10"}),
            entry(2, {**ARM, "variant": "v8"}),
            entry(3, AMD),
            entry(4, AMD),
        )
    )
    assert select_platform(found, Platform(os="linux", architecture="amd64")).digest == D[3]
    assert select_platform(found, Platform(os="linux", architecture="aarch64")).digest == D[2]
    with pytest.raises(NotFound) as caught:
        select_platform(found, Platform(os="linux", architecture="s390x"))
    assert "no matching manifest for linux/s390x" in caught.value.message
    assert "linux/arm64/v8" in caught.value.message
    assert select_platform(parse_index(index(entry(1, None)))).digest == D[1]
    with pytest.raises(NotFound, match="no matching manifest"):
        select_platform(parse_index(index()))


@pytest.mark.parametrize("text", [D[1], "sha512:" + "0" * 128])
def test_digests(text: str) -> None:
    assert parse_digest(text) == text
    assert text.endswith(digest_hex(parse_digest(text)))


@pytest.mark.parametrize(
    "text",
    ["", ":", "sha256", "sha256:", D[1] + "0", D[1][:-1], D[1] + "\n", D[1].replace("0", "O"),
     "md5:" + "0" * 32, "sha256:" + "A" * 64, "sha256:" + "\N{ARABIC-INDIC DIGIT ONE}" * 64, "sha256:../" + "0" * 61,
     "sha512:" + "0" * 64],
)  # fmt: skip
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(Invalid):
        parse_digest(text)


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_verifier(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    for digest in (digest_of(data), Digest("sha512:" + hashlib.sha512(data).hexdigest())):
        verifier = Verifier(digest, len(data))
        for piece in pieces:
            verifier.update(memoryview(piece))
        assert verifier.finish() == digest
    with pytest.raises(Corrupt, match="does not match"):
        Verifier(digest_of(data + b"x")).finish()
    long, short = Verifier(None, len(data)), Verifier(None, len(data) + 1)
    with pytest.raises(Corrupt, match="is longer"):
        long.update(data + b"x")
    short.update(data)
    with pytest.raises(Corrupt, match="were promised"):
        short.finish()
