"""What users do with images on this machine: tag, list, look, remove."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine
from oci_images import Image, tar

pytestmark = pytest.mark.root


def load(box: PrivateEngine, name: str, *layers: bytes, **options: Any) -> Image:
    image = Image(*layers, **options)
    box.proa("load", "-q", stdin=image.archive(f"docker.io/{name}"))
    return image


def test_tag_and_untag(box: PrivateEngine) -> None:
    first = load(box, "library/one:1", tar(("one", b"1")))
    box.proa("tag", "one:1", "localhost:5000/two")
    box.proa("tag", first.id, "three:x")
    assert sorted(box.inspect(first.id)["RepoTags"]) == ["localhost:5000/two:latest", "one:1", "three:x"]
    refused = box.proa("rmi", first.id, check=False)
    assert refused.returncode == 1
    assert b"is referenced in multiple repositories" in refused.stderr or b"must be forced" in refused.stderr
    assert box.out("rmi", "one:1") == "Untagged: one:1"
    assert box.out("rmi", "three:x") == "Untagged: three:x"
    gone = box.out("rmi", "localhost:5000/two").splitlines()
    assert gone[0] == "Untagged: localhost:5000/two:latest"
    assert f"Deleted: {first.id}" in gone
    assert box.proa("inspect", first.id, check=False).returncode == 1


def test_removing_an_image_frees_what_only_it_used(box: PrivateEngine) -> None:
    shared = tar(("shared", b"s" * 5000))
    before = box.stored()
    load(box, "library/left:1", shared, tar(("left", b"l")))
    right = load(box, "library/right:1", shared, tar(("right", b"r")))
    box.proa("rmi", "left:1")
    assert box.sh("cat /nothing 2>/dev/null; echo", image="busybox") == ""
    # The other image is whole: it goes out and in again.
    archive = box.proa("save", "right:1").stdout
    box.proa("rmi", "right:1")
    box.proa("image", "prune", "-f")
    after = box.stored()
    assert {k: after[k] - before[k] for k in after} == {k: set() for k in after}
    box.proa("load", stdin=archive)
    assert box.inspect("right:1")["Id"] == right.id


def test_an_image_in_use_stays(box: PrivateEngine) -> None:
    box.proa("tag", "busybox", "used:1")
    box.proa("import", "-", "used:1", stdin=tar(("bin", None), ("bin/true", Path("/bin/busybox").read_bytes())))
    box.proa("create", "--name", "user", "used:1", "/bin/true")
    refused = box.proa("rmi", "used:1", check=False)
    assert refused.returncode == 1
    assert b"unable to remove repository reference" in refused.stderr
    image = box.inspect("used:1")["Id"]
    assert box.out("rmi", "-f", "used:1") == f"Untagged: used:1\nDeleted: {image}"
    box.proa("image", "prune", "-f")
    box.proa("start", "-a", "user")  # forced away, the container still has its files
    again = box.out("commit", "user", "used:2")
    assert box.inspect(again)["RootFS"]["Layers"]
    box.proa("rm", "user")


def test_a_name_given_anew_leaves_the_old_image_dangling(box: PrivateEngine) -> None:
    old = load(box, "library/moved:1", tar(("old", b"1")))
    new = load(box, "library/moved:1", tar(("new", b"1")))
    assert box.inspect("moved:1")["Id"] == new.id
    dangling = box.out("images", "-q", "--no-trunc", "--filter", "dangling=true").split()
    assert dangling == [old.id]
    box.proa("image", "prune", "-f")
    assert box.proa("inspect", old.id, check=False).returncode == 1
    assert box.inspect("moved:1")["Id"] == new.id


def test_images_lists_names_sizes_and_ages(box: PrivateEngine) -> None:
    image = load(box, "tests/listed:1", tar(("file", bytes(2_000_000))))
    lines = box.out("images").splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    row = next(line for line in lines if line.startswith("tests/listed")).split()
    assert row[1:3] == ["1", image.id[7:19]]
    assert row[-1] == "2MB"
    assert box.out("images", "-q", "tests/listed") == image.id[7:19]
    assert box.out("images", "-q", "--no-trunc", "--filter", "reference=tests/*") == image.id
    assert box.out("images", "--digests", "--format", "{{.Repository}} {{.ID}}", "tests/listed:1").split() == [
        "tests/listed",
        image.id[7:19],
    ]
    assert json.loads(box.out("images", "--format", "json", "tests/listed"))["Tag"] == "1"


def test_inspect_and_history(box: PrivateEngine) -> None:
    config = {"User": "7:8", "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGUSR1"}
    image = load(box, "tests/looked-at:1", tar(("one", b"1")), tar(("two", b"2")), config=config)
    seen = box.inspect("tests/looked-at:1")
    assert {k: seen["Config"][k] for k in config} == config
    assert (seen["Id"], seen["Os"], seen["Architecture"]) == (image.id, "linux", "amd64")
    assert seen["RootFS"] == {"Type": "layers", "Layers": image.diff_ids}
    assert box.inspect(image.id[7:19])["Id"] == image.id
    assert box.out("inspect", "--format", "{{.Config.User}} {{json .RootFS.Layers}}", "tests/looked-at:1") == (
        "7:8 " + json.dumps(image.diff_ids, separators=(",", ":"))
    )
    box.proa("create", "--name", "base", "--network", "none", "tests/looked-at:1", "true")
    box.proa("commit", "-m", "what I did", "-a", "me", "--change", "CMD echo hi", "base", "tests/more:1")
    rows = box.out("history", "--no-trunc", "--format", "{{.ID}} {{.Comment}}", "tests/more:1").splitlines()
    assert rows[0] == f"{box.inspect('tests/more:1')['Id']} what I did"
    assert box.inspect("tests/more:1")["Author"] == "me"
    assert box.inspect("tests/more:1")["Config"]["Cmd"] == ["/bin/sh", "-c", "echo hi"]


def test_the_built_in_image(box: PrivateEngine) -> None:
    done = box.proa("run", "--rm", "--network", "none", "hello")
    assert done.stdout.startswith(b"Hello from proa!\n")
    assert done.stderr == b""
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", box.inspect("hello")["Id"])
