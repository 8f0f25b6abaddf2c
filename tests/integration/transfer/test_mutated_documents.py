"""Manifests, indexes and configs bent at random: refused with a typed error, or used; never anything else."""

import copy as copies
import hashlib
import io
import json
import random

import pytest

from proa.errors import NotFound, ProaError
from proa.oci import Descriptor
from proa.transfer.pulling import fetch_image

pytestmark = pytest.mark.root

NUMBERS = [-1, 0, 2**53, 2**60, 1.5]
TEXTS = ["", "x", "sha256:", "../../x", "\ud800", "\0"]
VALUES = [*NUMBERS, *TEXTS, None, True, [], [None], {}, {"a": None}]


class Memory:
    """A source over a dict of blobs."""

    def __init__(self, blobs):
        self.blobs = blobs

    def read(self, descriptor):
        if descriptor.digest not in self.blobs:
            raise NotFound(f"no blob {descriptor.digest}")
        return self.blobs[descriptor.digest]

    def open(self, descriptor, offset=0):
        return _Stream(io.BytesIO(self.read(descriptor)))

    def pause(self, tried, failure):
        return False

    def stop(self):
        pass


class _Stream:
    offset = 0

    def __init__(self, file):
        self.read = file.read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def paths(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*at, key))


def bend(document, dice):
    """The document with one to three values replaced, removed, doubled or renamed."""
    bent = copies.deepcopy(document)
    for _ in range(dice.randint(1, 3)):
        places = [p for p in paths(bent) if p]
        if not places:
            break
        *way, last = dice.choice(places)
        parent = bent
        for key in way:
            parent = parent[key]
        act = dice.randrange(4)
        if act == 0:
            del parent[last]
        elif act == 1 and isinstance(parent, list):
            parent.extend(parent * dice.choice([1, 300]))
        elif act == 2 and isinstance(parent, dict):
            parent[str(last).upper()] = parent[last]
        else:
            parent[last] = copies.deepcopy(dice.choice(VALUES))
    return bent


def encode(document):
    return json.dumps(document).encode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("seed", range(4))
def test_mutations(storage, make_image, seed):
    dice = random.Random(seed)
    made = make_image(2, size=500, seed="mutate")
    config = json.loads(made.blobs[made.manifest["config"]["digest"]])
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**made.root, "platform": {"os": "linux", "architecture": "amd64"}}],
    }
    refused = 0
    for _ in range(80):
        blobs = dict(made.blobs)
        kind = dice.choice(["config", "manifest", "index"])
        manifest = made.manifest
        if kind == "config":
            raw = encode(bend(config, dice))
            blobs[digest(raw)] = raw
            manifest = {**manifest, "config": {**manifest["config"], "digest": digest(raw), "size": len(raw)}}
        elif kind == "manifest":
            manifest = bend(manifest, dice)
        raw, media_type = encode(manifest), made.root["mediaType"]
        blobs[digest(raw)] = raw
        if kind == "index":
            raw, media_type = encode(bend(index, dice)), index["mediaType"]
            blobs[digest(raw)] = raw
        root = Descriptor(media_type=media_type, digest=digest(raw), size=len(raw))
        try:
            with storage.leases.hold("test"):
                fetch_image(storage, Memory(blobs), root)
        except ProaError:
            refused += 1
    assert refused > 20
    assert not [s for s in storage.snapshots.walk() if s.kind != "committed"]
