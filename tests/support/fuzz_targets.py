"""What is fuzzed: each target takes any bytes, and whatever they are, only a ProaError may come of them.

A target also checks what must hold for input that is accepted, against a second way to say it: reading again what was
written, another decoder, a rule about paths. SEEDS are where the search begins.
"""

from __future__ import annotations

import base64
import gzip
import json
import posixpath
from collections.abc import Callable

import zstandard
from hostile_archives import GOOD
from hostile_layers import cases
from layer_archives import archive, directory, hard_link, member, pax, symlink
from oci_images import Image, index_of

from proa.errors import ProaError
from proa.oci import children, parse_config, parse_index, parse_manifest, parse_reference, select_platform, strict_loads
from proa.oci.documents import Descriptor
from proa.storage.layers.archive import header
from proa.storage.layers.budget import Budget
from proa.storage.layers.decompress import decompress
from proa.storage.layers.names import canonical, display
from proa.storage.layers.reader import TarReader
from proa.transfer.auth import realm_is_trusted, token_flow
from proa.transfer.challenge import parse_challenges
from proa.transfer.credentials import Credentials, credentials_from_header
from proa.transfer.wire import HttpReply, Origin, origin_of

BUDGET = Budget(unpacked_bytes=1 << 20, file_bytes=1 << 30, entries=1000, ratio=100, ratio_floor_bytes=1 << 20)


def tar(data: bytes) -> None:
    """The tar reader, and the writer on what it read; also with checksums that are right, which no mutation hits."""
    read_tar(data)
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    summed = [
        b[:148] + b"%06o\0 " % (sum(b[:148]) + sum(b[156:]) + 256) + b[156:] if len(b) == 512 else b for b in blocks
    ]
    read_tar(b"".join(s if b[257:262] == b"ustar" else b for s, b in zip(summed, blocks, strict=True)))


def read_tar(data: bytes) -> None:
    try:
        reader = TarReader(iter([data] if data else []), BUDGET)
        for entry in reader:
            assert display(entry.name).isprintable()
            assert sum(len(piece) for piece in reader.data()) == entry.stored <= len(data)
            assert 0 <= entry.uid < 1 << 32
            check_path(entry.name)
            if entry.segments is None and 0 <= entry.mode <= 0o7777 and 0 <= entry.major | entry.minor < 1 << 20:
                again = TarReader(iter([header(entry)])).next()
                assert again is not None
                for field in ("name", "linkname", "kind", "mode", "uid", "gid", "stored", "mtime_ns"):
                    same = getattr(again, field) == getattr(entry, field)
                    assert same or entry.kind not in "012345", (field, getattr(entry, field), getattr(again, field))
    except ProaError:
        pass


def check_path(name: bytes) -> None:
    """A path inside an archive ends up inside: where the letter of it leads, and nowhere else."""
    try:
        path = canonical(name)
    except ProaError:
        return
    assert not path.startswith(b"/")
    assert b".." not in path.split(b"/")
    if path:
        assert posixpath.normpath(b"/" + name).lstrip(b"/") == path


def references(data: bytes) -> None:
    """References: the canonical and the familiar spelling mean the same."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        reference = parse_reference(text)
    except ProaError:
        return
    assert parse_reference(reference.name) == reference
    assert parse_reference(reference.familiar) == reference
    assert text.isascii()
    assert not {"..", ""} & set(reference.repository.split("/"))


def documents(data: bytes) -> None:
    """Manifests, indexes and configs; strict JSON is a part of what json takes."""
    for parse in (parse_manifest, parse_index, parse_config):
        try:
            parse(data)
        except ProaError:
            continue
        assert isinstance(json.loads(data), dict)
    for kind in ("manifest", "index"):
        descriptor = Descriptor(
            media_type=f"application/vnd.oci.image.{kind}.v1+json", digest=Image(GOOD).digest, size=len(data)
        )
        try:
            found = children(descriptor, data)
            assert all(child.size >= 0 and len(child.digest) > 64 for child in found)
            if kind == "index":
                select_platform(parse_index(data))
        except ProaError:
            continue
    try:
        value = strict_loads(data, 1 << 20)
    except ProaError:
        return
    assert json.dumps(value) == json.dumps(json.loads(data))


def auth(data: bytes) -> None:
    """What servers and clients say about who is who: challenges, realms, tokens, X-Registry-Auth."""
    text = data.decode("latin-1")
    registry = Origin("https", "registry.example.org", 443)
    secret = Credentials(username="sailor", password="wind")
    try:
        for challenge in parse_challenges(text):
            assert challenge.scheme == challenge.scheme.lower()
            flow = token_flow(challenge, registry, secret, ["repository:a:pull"])
            request = next(flow)
            # The password goes only where the registry's domain is.
            assert origin_of(request.url).host.endswith("example.org")
            assert request.url.startswith("https://")
            assert "\n" not in request.url
            flow.send(HttpReply(200, {}, data))
    except (ProaError, StopIteration):
        pass
    try:
        flow = token_flow(parse_challenges('Bearer realm="https://example.org/t"')[0], registry, None, ["x"])
        next(flow)
        flow.send(HttpReply(200, {}, data))
    except StopIteration as answer:
        assert answer.value.header.isascii()
        assert answer.value.header.isprintable()
    except ProaError:
        pass
    for value in (text, base64.b64encode(data).decode()):
        try:
            found = credentials_from_header(value)
        except ProaError:
            continue
        assert found is None or "\n" not in found.username + found.password + found.registry_token
    try:
        origin = origin_of(text)
        assert origin_of(origin.url) == origin
        if realm_is_trusted(registry, origin):
            assert origin.scheme == "https"
            assert origin.host.endswith("example.org")
    except ProaError:
        pass


def codecs(data: bytes) -> None:
    """Decompression: what zstandard can read to its end comes out the same here."""
    for kind in ("gzip", "zstd", "auto"):
        position = 0

        def read(count: int) -> bytes:
            nonlocal position
            piece = data[position : position + count]
            position += len(piece)
            return piece

        try:
            out = b"".join(decompress(kind, read, BUDGET))
        except ProaError:
            continue
        if kind == "gzip":
            assert out == gzip.decompress(data)
        elif kind == "zstd":
            assert out == zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


TARGETS: dict[str, Callable[[bytes], None]] = {f.__name__: f for f in (tar, references, documents, auth, codecs)}


def seeds(target: str) -> list[bytes]:
    """Input of all kinds that the target knows."""
    image = Image(GOOD)
    if target == "tar":
        good = archive(directory(b"d"), member(b"d/f", data=b"x"), symlink(b"l", b"d"), hard_link(b"h", b"d/f"))
        return [good, archive(pax([(b"path", b"p" * 200), (b"mtime", b"1.5")]), member(b"x")), GOOD] + [
            case.data[:4096] for case in cases(b"/canary")
        ]
    if target == "references":
        names = [
            "busybox",
            "docker.io/library/a:1",
            "localhost:5000/a/b__c@" + image.digest,
            "[::1]:80/x",
            "A/b",
            "a:b/c",
        ]
        return [name.encode() for name in names]
    if target == "documents":
        raw, _ = index_of([(image, {"os": "linux", "architecture": "amd64"})])
        return [raw, image.blobs[image.digest], image.blobs[image.id], b'{"a":[1,2.5e3,null,"\\u00e9\\ud83d\\ude00"]}']
    if target == "auth":
        return [
            b'Bearer realm="https://auth.example.org/token",service="registry",scope="repository:a/b:pull,push"',
            b'Basic realm="x", Negotiate dG9rZW4=, Bearer realm=y',
            b'{"token":"abc","expires_in":300,"refresh_token":"d"}',
            base64.urlsafe_b64encode(b'{"username":"a","password":"b","auth":"YTpi"}'),
            b"https://user@example.org:443/path?x=y",
        ]
    frame = zstandard.compress(GOOD)
    parts = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(b"ab" * 5000)
    return [gzip.compress(GOOD), gzip.compress(b"") * 2, frame, frame + parts, b"\x50\x2a\x4d\x18\x02\0\0\0xx" + parts]
