"""Push: unchanged when a registry has seen the image, compressed once when it is ours."""

import gzip
import hashlib
import io
import subprocess

import pytest

from proa.errors import Invalid, NotFound, ProaError, Unavailable
from proa.oci import media_types, parse_reference
from proa.transfer import import_tar, pull, push, read_image
from proa.transfer import transport as transport_module

pytestmark = pytest.mark.root


class Lines(list):
    def __call__(self, event):
        self.append(event.to_wire())


def name(storage, reference, descriptor):
    parsed = parse_reference(reference)
    storage.images.put(parsed.name, descriptor)
    return parsed


def test_a_pulled_image_is_pushed_unchanged(registry, start_registry, open_storage, make_image):
    there = start_registry()
    for compression in ("gzip", "zstd", "none"):
        made = make_image(2, compression=compression, seed=f"unchanged {compression}")
        storage = open_storage(compression)
        image = pull(storage, parse_reference(registry.put(made, f"proa/push-{compression}:v1")))
        reference = name(storage, f"{there.host}/other/{compression}:v2", image.descriptor)
        lines = Lines()
        assert push(storage, reference, progress=lines).digest == made.digest
        assert lines[0]["status"] == f"The push refers to repository [{there.host}/other/{compression}]"
        ids = [d[7:19] for d in made.diff_ids]
        assert [x["id"] for x in lines if x.get("status") == "Preparing"] == ids
        assert sorted(x["id"] for x in lines if x.get("status") == "Pushed") == sorted(ids)
        size = len(made.blobs[made.digest])
        assert lines[-2]["status"] == f"v2: digest: {made.digest} size: {size}"
        assert lines[-1] == {"progressDetail": {}, "aux": {"Tag": "v2", "Digest": made.digest, "Size": size}}
        again = open_storage(f"{compression}-again")
        assert pull(again, reference).descriptor.digest == made.digest

        lines = Lines()
        push(storage, reference, progress=lines)
        assert sorted(x["id"] for x in lines if x.get("status") == "Layer already exists") == sorted(ids)


def test_our_own_image_is_compressed_once(registry, open_storage, make_image):
    made = make_image(1, size=60_000, seed="own")
    storage = open_storage()
    reference = parse_reference(f"{registry.host}/proa/own:v1")
    image = import_tar(storage, io.BytesIO(made.layers[0]), reference)
    before = read_image(storage.content, image.descriptor)
    pushed = push(storage, reference)
    assert pushed.digest != image.descriptor.digest
    after = read_image(storage.content, storage.images.get(reference.name).descriptor)
    assert after.descriptor.digest == pushed.digest
    assert after.manifest.config == before.manifest.config  # the image ID
    assert [d.media_type for d in after.manifest.layers] == [media_types.OCI_LAYER_GZIP]
    assert after.manifest.annotations is None
    with storage.content.open(after.manifest.layers[0]) as reader:
        plain = gzip.decompress(reader.read())
    assert "sha256:" + hashlib.sha256(plain).hexdigest() == made.diff_ids[0]

    second = name(storage, f"{registry.host}/proa/own:v2", storage.images.get(reference.name).descriptor)
    lines = Lines()
    assert push(storage, second, progress=lines).digest == pushed.digest
    assert "Layer already exists" in [x.get("status") for x in lines]
    storage.collect()
    assert push(storage, reference).digest == pushed.digest
    pulled = pull(open_storage("elsewhere"), reference)
    assert pulled.descriptor.digest == pushed.digest
    inspected = subprocess.run(
        ["/usr/bin/skopeo", "inspect", "--tls-verify=false", f"docker://{reference.name}"],
        capture_output=True,
        check=True,
    )
    assert pushed.digest.encode() in inspected.stdout


def test_blobs_of_a_sibling_repository_are_mounted(registry, storage, make_image):
    made = make_image(2, seed="sibling")
    image = pull(storage, parse_reference(registry.put(made, "proa/sibling:v1")))
    reference = name(storage, f"{registry.host}/proa/mounted:v1", image.descriptor)
    lines = Lines()
    push(storage, reference, progress=lines)
    assert [x["status"] for x in lines if "Mounted" in x.get("status", "")] == ["Mounted from proa/sibling"] * 2


def test_push_of_nothing_and_by_digest(registry, storage, make_image):
    with pytest.raises(NotFound, match="No such image"):
        push(storage, parse_reference(f"{registry.host}/proa/none:v1"))
    with pytest.raises(Invalid, match="cannot push a digest reference"):
        push(storage, parse_reference(f"{registry.host}/proa/none@sha256:{'0' * 64}"))


def test_a_broken_upload_begins_again(start_server, send_reply, registry, storage, make_image, monkeypatch):
    monkeypatch.setitem(transport_module.Transport.__init__.__kwdefaults__, "backoff_s", 0.02)
    made = make_image(1, size=200_000, seed="upload")
    image = pull(storage, parse_reference(registry.put(made, "proa/upload:v1")))
    seen = []
    stored = {}

    def answer(handler, body):
        seen.append((handler.command, handler.path.partition("?")[0].rpartition("/")[2]))
        if handler.command == "HEAD":
            return send_reply(handler, 200 if handler.path.rpartition("/")[2] in stored else 404)
        if handler.command == "POST":
            return send_reply(handler, 202, b"", {"Location": f"/v2/proa/x/blobs/uploads/{len(seen)}"})
        if handler.command == "PUT" and "digest=" in handler.path:
            puts = [s for s in seen if s[0] == "PUT"]
            if len(puts) == 1:
                handler.connection.close()
                handler.close_connection = True
                return None
            if len(puts) == 2:
                return send_reply(handler, 503, b"", {"Retry-After": "0"})
            stored[handler.path.partition("digest=")[2].replace("%3A", ":")] = body
        if handler.command == "PUT" and "manifests" in handler.path:
            stored["manifest"] = body
        return send_reply(handler, 201 if handler.command == "PUT" else 200)

    server = start_server(answer)
    push(storage, name(storage, f"{server.host}/proa/x:v1", image.descriptor))
    layer = made.manifest["layers"][0]["digest"]
    assert stored[layer] == made.blobs[layer]
    assert stored["manifest"] == made.blobs[made.digest]
    assert seen[-1] == ("PUT", "v1")  # the tag comes last


def test_a_registry_that_refuses_says_why(start_server, send_reply, registry, storage, make_image):
    image = pull(storage, parse_reference(registry.put(make_image(1, seed="refuse"), "proa/refuse:v1")))

    def answer(handler, body):
        if handler.path == "/v2/":
            return send_reply(handler, 200)
        error = b'{"errors":[{"code":"DENIED","message":"requested access\\nto the resource is denied"}]}'
        return send_reply(handler, 404 if handler.command == "HEAD" else 403, error)

    server = start_server(answer)
    with pytest.raises(ProaError, match="denied: requested access to the resource is denied"):
        push(storage, name(storage, f"{server.host}/proa/x:v1", image.descriptor))


def test_rate_limits_are_told(start_server, send_reply, monkeypatch):
    monkeypatch.setitem(transport_module.Transport.__init__.__kwdefaults__, "backoff_s", 0.01)

    def answer(handler, body):
        if handler.path == "/v2/":
            return send_reply(handler, 200)
        return send_reply(handler, 429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}')

    from proa.transfer.remote import Remote

    server = start_server(answer)
    with pytest.raises(Unavailable, match="toomanyrequests") as caught:
        Remote(parse_reference(f"{server.host}/x/y:1")).resolve()
    assert caught.value.code == "rate-limited"
