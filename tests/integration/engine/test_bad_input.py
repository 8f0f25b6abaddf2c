"""What is wrong gets one clear line and the right exit status, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine
from oci_images import OCI, Image, digest, tar

pytestmark = pytest.mark.root


def refused(
    box: PrivateEngine, status: int, text: str, *command: str, stdin: bytes | None = None, keeps: tuple[str, ...] = ()
) -> bytes:
    """The command fails with `status`, says `text` in one line (and a hint perhaps), and the store is as before."""
    before = box.stored()
    done = box.proa(*command, stdin=stdin, check=False)
    assert done.returncode == status, done
    said = done.stderr.decode()
    complaints = [line for line in said.splitlines() if line.startswith(("proa: ", "unknown ", "invalid "))]
    assert len(complaints) == 1, said
    assert text in complaints[0], said
    assert "Traceback" not in said
    after = box.stored()
    assert {k: after[k] - before[k] for k in after if k not in keeps} == {k: set() for k in after if k not in keeps}
    return done.stderr


BUSYBOX = tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()))


def two_layers(**options: Any) -> Image:
    return Image(BUSYBOX, tar(("data", bytes(range(256)) * 400)), **options)


def big_layer(image: Image) -> str:
    return str(max(image.manifest["layers"], key=lambda d: int(d["size"]))["digest"])


Serve = Callable[..., Any]


def serve(serve_blobs: Serve, image: Image, bad: Callable[[str, bytes], tuple[bytes, bool]] | None = None) -> str:
    return str(serve_blobs(image.blobs, image.digest, image.root["mediaType"], bad).reference)


def test_a_corrupted_layer(box: PrivateEngine, serve_blobs: Serve) -> None:
    image = two_layers()
    bad = big_layer(image)

    def flip(name: str, data: bytes) -> tuple[bytes, bool]:
        middle = len(data) // 2
        return (data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if name == bad else data, False)

    # What other layers had got of theirs when this one failed may stay, for the next attempt.
    refused(box, 1, bad[:19], "pull", serve(serve_blobs, image, flip), keeps=("partial",))
    refused(box, 125, bad[:19], "run", "--rm", serve(serve_blobs, image, flip), "true", keeps=("partial",))
    good = serve(serve_blobs, image)
    box.proa("pull", good)
    assert box.sh("wc -c < /data", image=good) == "102400"


def test_a_layer_that_is_not_what_its_config_says(box: PrivateEngine, serve_blobs: Serve) -> None:
    wrong = digest(b"something else")
    image = two_layers(diff_ids=[digest(BUSYBOX), wrong])
    refused(box, 1, "the image config says", "pull", serve(serve_blobs, image))
    assert not any(wrong in name for name in box.stored()["snapshots"])
    refused(box, 1, "the image config says", "load", stdin=image.archive("docker.io/tests/wrong:1"))
    assert box.out("images", "-q", "tests/wrong") == ""


@pytest.mark.parametrize("times", [1, 1000])
def test_a_download_that_is_cut(box: PrivateEngine, serve_blobs: Serve, times: int) -> None:
    image = two_layers(how="none")
    bad, cuts = big_layer(image), [times]

    def cut(name: str, data: bytes) -> tuple[bytes, bool]:
        if name == bad and cuts[0]:
            cuts[0] -= 1
            return data[: len(data) // 3], True
        return data, False

    name = serve(serve_blobs, image, cut)
    if times == 1:
        box.proa("pull", name)
        assert box.sh("wc -c < /data", image=name) == "102400"
    else:
        refused(box, 1, "", "pull", name, keeps=("blobs", "snapshots", "partial"))
        cuts[0] = 0
        box.proa("pull", name)  # what was there is gone on with
        assert box.sh("wc -c < /data", image=name) == "102400"


def test_a_manifest_that_is_not_what_was_asked_for(box: PrivateEngine, serve_blobs: Serve) -> None:
    image = two_layers()
    other = Image(tar(("other", b"")))
    blobs = {**image.blobs, image.digest: other.blobs[other.digest]}
    server = serve_blobs(blobs, image.digest, image.root["mediaType"])
    refused(box, 1, "", "pull", server.reference.replace(":v1", f"@{image.digest}"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
        ({"layers": [{"mediaType": "text/html", "digest": digest(b""), "size": 0}]}, ""),
        ({"layers": [{"mediaType": f"{OCI}.layer.v1.tar", "digest": "sha256:../../x", "size": 1}]}, "digest"),
        ({"manifests": []}, ""),
        ({"config": None}, ""),
    ],
)
def test_malformed_manifests(box: PrivateEngine, serve_blobs: Serve, change: dict[str, Any], text: str) -> None:
    image = two_layers()
    raw = json.dumps({**image.manifest, **change}).encode()
    server = serve_blobs({**image.blobs, digest(raw): raw}, digest(raw), image.root["mediaType"])
    refused(box, 1, text, "pull", server.reference)


def test_missing_images(box: PrivateEngine, serve_blobs: Serve) -> None:
    host = serve(serve_blobs, two_layers()).partition("/")[0]
    refused(box, 1, "not found", "pull", f"{host}/tests/nosuch:1")
    refused(box, 125, "not found", "run", "--rm", f"{host}/tests/nosuch:1", "true")
    refused(box, 125, "No such image: nosuch:latest", "run", "--rm", "--pull", "never", "nosuch", "true")
    refused(box, 1, "No such image: nosuch:1", "tag", "nosuch:1", "x:1")
    refused(box, 1, "No such image: nosuch:latest", "rmi", "nosuch")
    refused(box, 1, "No such image: nosuch:latest", "push", "nosuch")
    refused(box, 1, "No such image: nosuch:latest", "history", "nosuch")
    refused(box, 1, "127.0.0.1:9", "pull", "127.0.0.1:9/unreachable/image:1")


def test_names_that_are_none(box: PrivateEngine) -> None:
    refused(box, 125, "must be lowercase", "run", "--rm", "Busybox", "true")
    refused(box, 1, "invalid reference format", "pull", "a b")
    refused(box, 1, "invalid reference format", "tag", "busybox", "x:y:z")
    refused(box, 125, "Invalid container name", "run", "--name", "a/b", "busybox", "true")
    refused(box, 125, "invalid reference format", "run", "--rm", "..", "true")


def test_unknown_flags_and_commands(box: PrivateEngine) -> None:
    for command, status in ((("run", "--nosuch", "busybox"), 125), (("ps", "--nosuch"), 1), (("frobnicate",), 1)):
        done = box.proa(*command, check=False)
        assert done.returncode in (status, 125), done
        assert done.stdout == b""
        assert done.stderr.startswith(b"unknown ")
        assert b"proa" in done.stderr
        assert b"--help" in done.stderr
    done = box.proa("run", check=False)
    assert done.returncode in (1, 125)
    assert b"requires at least 1 argument" in done.stderr


def test_missing_containers(box: PrivateEngine) -> None:
    for command in ("start", "stop", "kill", "wait", "rm", "logs", "pause", "unpause", "restart", "top", "port"):
        refused(box, 1, "No such container: nosuch", command, "nosuch")
    refused(box, 1, "No such container: nosuch", "exec", "nosuch", "true")
    refused(box, 1, "No such container: nosuch", "rename", "nosuch", "other")
    refused(box, 1, "No such container: nosuch", "commit", "nosuch", "x:1")
    done = box.proa("inspect", "nosuch", check=False)
    assert (done.returncode, done.stdout.strip()) == (1, b"[]")
    assert b"o such object: nosuch" in done.stderr


def test_a_busy_name(box: PrivateEngine) -> None:
    box.proa("create", "--name", "taken", "busybox", "true")
    text = 'The container name "/taken" is already in use by container'
    refused(box, 125, text, "run", "--name", "taken", "busybox", "true")
    refused(box, 1, text, "create", "--name", "taken", "busybox", "true")
    box.proa("create", "--name", "other", "busybox", "true")
    refused(box, 1, text, "rename", "other", "taken")


@pytest.mark.parametrize(
    ("command", "status"), [("nosuch", 127), ("/no/such", 127), ("/etc", 126), ("/etc/passwd", 126)]
)
def test_commands_that_cannot_be_executed(box: PrivateEngine, command: str, status: int) -> None:
    refused(box, status, command, "run", "--rm", "--network", "none", "busybox", command)
    box.proa("create", "--name", "tried", "--network", "none", "busybox", command)
    assert box.proa("start", "tried", check=False).returncode in (1, status)
    state = box.inspect("tried")["State"]
    assert (state["ExitCode"], state["Running"]) == (status, False)
    assert command in state["Error"]
    box.proa("run", "-d", "--name", "runs", "--network", "none", "busybox", "sleep", "1000")
    done = box.proa("exec", "runs", command, check=False)
    assert (done.returncode, done.stdout.count(b"\n") + done.stderr.count(b"\n")) == (status, 1), done
    assert command.encode() in done.stdout + done.stderr


def bad_archives() -> dict[str, bytes]:
    image = two_layers()
    whole = image.archive("docker.io/tests/bad:1")
    missing = Image(BUSYBOX)
    del missing.blobs[missing.manifest["layers"][0]["digest"]]
    flipped = two_layers()
    layer = flipped.manifest["layers"][1]["digest"]
    flipped.blobs[layer] = flipped.blobs[layer][:-20] + bytes(20)
    return {
        "nothing": b"",
        "text": b"this is no archive\n" * 100,
        "zeros": bytes(10240),
        "html in gzip": gzip.compress(b"<html>"),
        "cut": whole[: len(whole) * 2 // 3],
        "cut gzip": gzip.compress(whole)[:-5000],
        "no image inside": tar(("file", b"x")),
        "manifest is no JSON": tar(("manifest.json", b"{"), ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')),
        "names files outside": tar(
            ("manifest.json", json.dumps([{"Config": "../../etc/passwd", "RepoTags": ["x:1"], "Layers": []}]).encode())
        ),
        "layer is missing": missing.archive("docker.io/tests/bad:1"),
        "layer is another": flipped.archive("docker.io/tests/bad:1"),
        "config is a link": tar(
            ("c.json", "/etc/passwd"),
            ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": []}]).encode()),
        ),
    }


@pytest.mark.parametrize("name", list(bad_archives()))
def test_bad_archives(box: PrivateEngine, name: str) -> None:
    refused(box, 1, "", "load", stdin=bad_archives()[name], keeps=("partial",) if "cut" in name else ())
    assert box.out("images", "-q", "tests/bad") == ""


def test_bad_imports(box: PrivateEngine, tmp_path: Path) -> None:
    refused(box, 1, "", "import", "-", "bad:1", stdin=b"no tar at all" * 1000)
    refused(box, 1, "", "import", "-", "bad:1", stdin=BUSYBOX[:-700000])
    refused(box, 1, "nosuch.tar", "import", str(tmp_path / "nosuch.tar"), "bad:1")
    refused(box, 1, "FROBNICATE", "import", "--change", "FROBNICATE x", "-", "bad:1", stdin=BUSYBOX)
    assert box.out("images", "-q", "bad") == ""


def test_contradictory_options(box: PrivateEngine) -> None:
    for options in (
        ("--rm", "--restart", "always"),
        ("--memory", "banana"),
        ("--memory", "1"),
        ("--cpus", "1000"),
        ("--pids-limit", "x"),
        ("-e", "=x"),
        ("--network", "nosuch"),
        ("-p", "99999:80"),
        ("-p", "x"),
        ("-v", "relative/path:/x"),
        ("-v", "/x:relative"),
        ("-w", "relative"),
        ("--hostname", "a b"),
        ("--security-opt", "nosuch=1"),
        ("--security-opt", "seccomp=/no/such/profile.json"),
        ("--env-file", "/no/such/file"),
        ("--ulimit", "nofile=x"),
        ("--label", "=x"),
        ("--stop-signal", "SIGNOSUCH"),
    ):
        done = box.proa("run", "--name", "never", *options, "busybox", "true", check=False)
        assert done.returncode == 125, (options, done)
        assert done.stderr.strip(), options
        assert b"Traceback" not in done.stderr
    assert box.containers() == []
