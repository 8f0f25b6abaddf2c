"""Images move between OCI layouts and a real registry unchanged."""

import subprocess

import pytest

from proa.errors import NotFound, Unsupported
from proa.oci import parse_reference
from proa.transfer.copying import copy
from proa.transfer.layout import Layout
from proa.transfer.remote import Remote


def skopeo(*args):
    done = subprocess.run(["/usr/bin/skopeo", *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_push_then_pull_keeps_the_digest(registry, make_image, tmp_path, compression):
    image = make_image(3, compression=compression, seed=compression)
    source = Layout(image.write(tmp_path / "in"))
    reference = parse_reference(f"{registry.host}/proa/{compression}:v1")
    pushed = copy(source, Remote(reference))
    assert pushed.digest == image.digest
    assert Remote(reference).resolve().digest == image.digest

    pulled = copy(Remote(reference), Layout(tmp_path / "out", "x"))
    assert pulled.digest == image.digest
    for key, data in image.blobs.items():
        assert (tmp_path / "out/blobs/sha256" / key[7:]).read_bytes() == data


def test_skopeo_reads_what_was_pushed_and_proa_what_skopeo_pushed(registry, make_image, tmp_path):
    image = make_image(2, seed="skopeo")
    layout = image.write(tmp_path / "in")
    reference = f"{registry.host}/proa/one:v1"
    copy(Layout(layout), Remote(parse_reference(reference)))
    inside = f"oci:{tmp_path}/skopeo:v1"
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", inside)
    assert Layout(tmp_path / "skopeo", "v1").resolve().digest == image.digest

    back = f"{registry.host}/proa/two:v1"
    skopeo("copy", "--dest-tls-verify=false", inside, f"docker://{back}")
    assert Remote(parse_reference(back)).resolve().digest == image.digest
    skopeo("copy", "--dest-tls-verify=false", "--format=v2s2", inside, f"docker://{back}")
    docker = Remote(parse_reference(back)).resolve()
    assert "docker" in docker.media_type
    assert copy(Remote(parse_reference(back)), Layout(tmp_path / "docker")).digest == docker.digest


def test_a_second_repository_mounts_blobs(registry, make_image, tmp_path):
    image = make_image(2, seed="mount")
    layout = Layout(image.write(tmp_path / "in"))
    copy(layout, Remote(parse_reference(f"{registry.host}/proa/origin:v1")))
    there = Remote(
        parse_reference(f"{registry.host}/proa/derived:v1"), mount_from=dict.fromkeys(image.blobs, "proa/origin")
    )
    copy(layout, there)
    assert [there.mounted_from(d) for d in image.blobs if d != image.digest] == ["proa/origin"] * 3


def test_missing_names_are_not_found_in_docker_words(registry):
    with pytest.raises(NotFound, match=r"manifest for .*proa/none:v9 not found: manifest unknown: manifest unknown"):
        Remote(parse_reference(f"{registry.host}/proa/none:v9")).resolve()


def test_schema1_is_refused(fake_registry, make_image):
    fake = fake_registry(make_image(1))
    fake.served_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with pytest.raises(Unsupported, match="schema 1"):
        Remote(parse_reference(fake.reference)).resolve()
