"""Volumes: what is in them, whose it is, where it lies, and how it moves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine, kill_and_wait, until
from oci_images import special, tar

pytestmark = pytest.mark.root

QUIET = ("--network", "none")


@pytest.fixture(autouse=True)
def no_volumes_stay(box: PrivateEngine) -> Iterator[None]:
    """The engine is shared by tests."""
    yield
    if containers := box.out("ps", "-aq").split():
        box.proa("rm", "-f", *containers)
    box.proa("volume", "prune", "-af")
    assert box.out("volume", "ls", "-q") == ""
    assert f"{box.root}/volumes" not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def seeded(box: PrivateEngine) -> PrivateEngine:
    """An engine with an image `seeded` that has things at /seed, partly through a link at /alias."""
    box.proa("run", "--name", "maker", *QUIET, "busybox", "sh", "-c", """
        mkdir -p /seed/sub && echo one > /seed/a && echo two > /seed/sub/b
        ln -s a /seed/link && ln /seed/a /seed/hard
        chown -R 7:8 /seed/sub && chmod 2770 /seed && chown 5:6 /seed && mkfifo /seed/fifo && ln -s seed /alias
        mkdir /empty && chmod 700 /empty && chown 9:9 /empty
        touch -d '2001-02-03 04:05:06' /seed/a && echo f > /file
    """)  # fmt: skip
    box.proa("commit", "--change", 'CMD ["sh"]', "maker", "seeded")
    box.proa("rm", "maker")
    return box


LOOK = "cd /data; stat -c '%n %a %u %g %F %Y' . a sub sub/b fifo | sort; readlink link; cat a sub/b; stat -c %h a"


def test_a_new_volume_gets_what_the_image_has(seeded: PrivateEngine) -> None:
    box = seeded
    wanted = box.sh(LOOK.replace("/data", "/seed"), image="seeded")
    for target in ("/seed", "/alias"):
        name = f"v{target[1:]}"
        assert box.sh(LOOK.replace("/data", target), "-v", f"{name}:{target}", image="seeded") == wanted
    anonymous = box.sh(LOOK.replace("/data", "/seed"), "-v", "/seed", image="seeded")
    assert anonymous == wanted
    # What is in a volume stays: a second container sees the first one's changes, not the image.
    box.sh("echo changed > /seed/a", "-v", "vseed:/seed", image="seeded")
    assert box.sh("cat /seed/a", "-v", "vseed:/seed", image="seeded") == "changed"
    # Of an empty directory there is just the owner and the mode.
    assert box.sh("stat -c '%a %u' /empty", "-v", "e:/empty", image="seeded") == "700 9"
    assert box.sh("ls -A /nowhere", "-v", "n:/nowhere", image="seeded") == ""


def test_a_volume_that_is_used_is_left_alone(seeded: PrivateEngine) -> None:
    box = seeded
    box.proa("volume", "create", "used")
    box.sh("echo mine > /x/file", "-v", "used:/x")
    assert box.sh("ls /seed", "-v", "used:/seed", image="seeded") == "file"
    assert box.sh("ls -A /seed", "-v", "fresh:/seed:nocopy", image="seeded") == ""
    mount = "type=volume,source=other,target=/seed,volume-nocopy"
    assert box.sh("ls -A /seed", "--mount", mount, image="seeded") == ""
    # With a container that runs in an empty volume nothing is exchanged under its feet.
    box.proa("run", "-d", "--name", "in", *QUIET, "-v", "busy:/x", "busybox", "sleep", "1000")
    box.proa("create", "--name", "late", *QUIET, "-v", "busy:/seed", "seeded", "ls", "-A", "/seed")
    box.proa("exec", "in", "touch", "/x/here")
    assert box.out("start", "-a", "late") == "here"
    box.proa("rm", "-f", "in", "late")


def test_volumes_of_the_image_and_of_others(seeded: PrivateEngine) -> None:
    box = seeded
    box.proa("create", "--name", "base", *QUIET, "seeded")
    box.proa("commit", "--change", "VOLUME /seed /file/..", "base", "voluminous", check=False)
    box.proa("commit", "--change", "VOLUME /seed", "base", "voluminous")
    box.proa("rm", "base")
    box.proa("create", "--name", "data", *QUIET, "voluminous")
    point = box.inspect("data")["Mounts"][0]
    assert (point["Type"], point["Destination"], len(point["Name"])) == ("volume", "/seed", 64)
    owner = json.loads(box.out("volume", "inspect", point["Name"]))[0]["Status"]["Owner"]
    assert (owner["name"], owner["image"], owner["path"]) == ("data", "voluminous", "/seed")
    box.sh("echo shared > /seed/shared", "--volumes-from", "data")
    assert box.sh("cat /seed/shared", "--volumes-from", "data:ro") == "shared"
    failed = box.proa("run", "--rm", *QUIET, "--volumes-from", "data:ro", "busybox", "touch", "/seed/x", check=False)
    assert b"Read-only file system" in failed.stderr
    assert box.proa("run", "--rm", *QUIET, "--volumes-from", "nobody", "busybox", check=False).returncode == 125
    assert box.proa("volume", "rm", point["Name"], check=False).returncode == 1
    box.proa("rm", "data")
    assert point["Name"] in box.out("volume", "ls", "-q")
    shown = box.out("volume", "ls", "--orphans")
    assert shown.splitlines()[0].split() == ["VOLUME", "NAME", "CONTAINER", "IMAGE", "PATH", "CREATED"]
    assert shown.splitlines()[1].split()[1:4] == ["data", "voluminous", "/seed"]
    assert point["Name"] in box.out("volume", "prune", "-f")


def test_owner_mode_and_labels_of_a_new_volume(box: PrivateEngine) -> None:
    box.proa("volume", "create", "--uid", "1000", "--gid", "50", "--mode", "2770", "--label", "a=b", "mine")
    assert box.sh("stat -c '%u %g %a' /d", "-v", "mine:/d") == "1000 50 2770"
    box.sh("touch /d/x", "-v", "mine:/d", "-u", "1000")
    details = json.loads(box.out("volume", "inspect", "mine"))[0]
    assert (details["Labels"], details["Options"]["uid"]) == ({"a": "b"}, "1000")
    assert box.out("volume", "ls", "-q", "--filter", "label=a=b") == "mine"
    assert box.out("volume", "ls", "-q", "--filter", "label=a=c") == ""
    box.proa("volume", "create", "mine")
    again = box.proa("volume", "create", "--uid", "7", "mine", check=False)
    assert (again.returncode, b"exists with other options" in again.stderr) == (1, True)
    # U: whoever the container's user is, the files become his.
    box.sh("touch /d/mine && chown 3 /d/mine && ln -s /etc/passwd /d/link", "-v", "given:/d")
    assert box.sh("cd /d; stat -c '%u %g' . mine; touch /d/new", "-v", "given:/d:U", "-u", "77:88") == "77 88\n77 88"
    assert box.sh("stat -c %u /etc/passwd; stat -c %u /d/link", "-v", "given:/d") == "0\n77"


def test_a_volume_with_a_size_is_full_at_it(box: PrivateEngine) -> None:
    box.proa("volume", "create", "--size", "8m", "--uid", "9", "small")
    assert box.sh("ls -A /d; stat -c %u /d", "-v", "small:/d") == "9"
    full = box.proa("run", "--rm", *QUIET, "-v", "small:/d", "busybox", "dd", "if=/dev/zero", "of=/d/x", check=False)
    assert b"No space left on device" in full.stderr
    assert 4 << 20 < int(box.sh("stat -c %s /d/x", "-v", "small:/d")) < 8 << 20
    # Two containers at once see the same.
    box.proa("run", "-d", "--name", "one", *QUIET, "-v", "small:/d", "busybox", "sleep", "1000")
    assert box.sh("rm /d/x; echo hi > /d/y; ls /d", "-v", "small:/d") == "y"
    assert box.out("exec", "one", "cat", "/d/y") == "hi"
    assert box.proa("volume", "rm", "small", check=False).returncode == 1
    box.proa("rm", "-f", "one")
    assert "small" not in Path("/proc/self/mountinfo").read_text()
    box.proa("volume", "clone", "small", "copy")
    assert box.sh("cat /d/y; df -m /d | tail -1 | awk '{print ($2 < 9)}'", "-v", "copy:/d") == "hi\n1"
    box.proa("volume", "rm", "small", "copy")
    assert box.proa("volume", "create", "--size", "5k", check=False).returncode == 1


def test_file_systems_of_the_driver(box: PrivateEngine, tmp_path: Path) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1777")
    box.proa("volume", "create", *options, "fast")
    box.proa("run", "-d", "--name", "one", *QUIET, "-v", "fast:/d", "busybox", "sleep", "1000")
    assert box.sh("echo x > /d/file; stat -f -c %T /d", "-v", "fast:/d") == "tmpfs"
    assert box.out("exec", "one", "cat", "/d/file") == "x"
    box.proa("rm", "-f", "one")
    assert box.sh("ls -A /d", "-v", "fast:/d") == ""  # nobody used it any more
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("on the host")
    options = ("-o", "type=none", "-o", f"device={tmp_path}/there", "-o", "o=bind,ro")
    box.proa("volume", "create", *options, "bound")
    assert box.sh("cat /d/file; touch /d/x 2>&1", "-v", "bound:/d", check=False).startswith("on the host")
    assert not (tmp_path / "there/x").exists()
    box.proa("volume", "create", "-o", "type=none", "-o", "device=/nowhere", "-o", "o=bind", "broken")
    failed = box.proa("run", "--rm", *QUIET, "-v", "broken:/d", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert b"failed to mount local volume: mount /nowhere:" in failed.stderr
    assert b"no such file or directory" in failed.stderr
    assert box.containers() == []


def test_mounted_volumes_outlive_the_engine(box: PrivateEngine) -> None:
    box.proa("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "lasting")
    box.proa(
        "run", "-d", "--name", "one", *QUIET, "-v", "lasting:/d", "busybox", "sh", "-c", "echo x > /d/f; sleep 1000"
    )
    until(lambda: box.proa("exec", "one", "test", "-e", "/d/f", check=False).returncode == 0)
    box.kill_engine()
    assert box.sh("cat /d/f", "-v", "lasting:/d") == "x"
    box.proa("kill", "one")
    until(lambda: not box.inspect("one")["State"]["Running"])
    assert f"{box.root}/volumes" not in Path("/proc/self/mountinfo").read_text()
    box.proa("start", "one")
    monitor = box.monitor_pid("one")
    box.kill_engine()
    kill_and_wait(monitor)
    box.proa("rm", "-f", "one")
    assert f"{box.root}/volumes" not in Path("/proc/self/mountinfo").read_text()


def archive_of(box: PrivateEngine, name: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(box.proa("volume", "export", name).stdout))


def test_export_import_clone_and_snapshot(seeded: PrivateEngine, tmp_path: Path) -> None:
    box = seeded
    wanted = box.sh(LOOK.replace("/data", "/seed"), "-v", "v:/seed", image="seeded")
    with archive_of(box, "v") as archive:
        names = {member.name for member in archive}
    assert names == {".", "a", "fifo", "hard", "link", "sub", "sub/b"}
    box.proa("volume", "export", "-o", str(tmp_path / "v.tar"), "v")
    box.proa("volume", "import", "copy", str(tmp_path / "v.tar"))
    assert box.sh(LOOK, "-v", "copy:/data") == wanted
    subprocess.run(["gzip", str(tmp_path / "v.tar")], check=True)
    box.proa("volume", "import", "zipped", stdin=(tmp_path / "v.tar.gz").read_bytes())
    assert box.sh(LOOK, "-v", "zipped:/data") == wanted
    assert box.out("volume", "clone", "--label", "x=y", "v", "twin") == "twin"
    assert box.sh(LOOK, "-v", "twin:/data") == wanted
    name = box.out("volume", "snapshot", "v")
    assert name.startswith("v-2")
    assert json.loads(box.out("volume", "inspect", name))[0]["Labels"] == {"proa.snapshot-of": "v"}
    refused = box.proa("volume", "import", "v", stdin=tar(("new", b"x")), check=False)
    assert (refused.returncode, b"not empty" in refused.stderr) == (1, True)
    assert box.sh(LOOK, "-v", "v:/data") == wanted
    box.proa("volume", "import", "--replace", "v", stdin=tar(("new", b"x"), (".wh.odd", b"y")))
    assert box.sh("ls -A /data", "-v", "v:/data").split() == [".wh.odd", "new"]
    assert box.proa("volume", "clone", "v", "twin", check=False).returncode == 1
    assert box.proa("volume", "export", "none", check=False).returncode == 1
    box.proa("run", "-d", "--name", "user", *QUIET, "-v", "v:/d", "busybox", "sleep", "1000")
    busy = box.proa("volume", "import", "--replace", "v", stdin=tar(("new", b"x")), check=False)
    assert (busy.returncode, b"in use" in busy.stderr) == (1, True)
    box.proa("rm", "-f", "user")


def test_a_bad_archive_changes_nothing(box: PrivateEngine) -> None:
    box.proa("volume", "import", "kept", stdin=tar(("kept", b"x")))
    for bad in (b"no archive at all" * 100, tar(("a", b"x" * 2000))[:1000], tar(("../../escape", b"x"))):
        assert box.proa("volume", "import", "--replace", "kept", stdin=bad, check=False).returncode == 1
        assert box.sh("ls -A /d", "-v", "kept:/d") == "kept"
        assert box.proa("volume", "import", "fresh", stdin=bad, check=False).returncode == 1
    assert "fresh" not in box.out("volume", "ls", "-q").split()
    assert sorted(os.listdir(box.root / "volumes/kept")) == ["data", "volume.json"]
    # Links in an archive lead nowhere: what goes through one lands inside.
    link = tarfile.TarInfo("out")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    through = tar(link, ("out/proa-was-here", b"x"), special("null", tarfile.CHRTYPE, 1, 3))
    box.proa("volume", "import", "linked", stdin=through)
    assert not Path("/etc/proa-was-here").exists()


def test_a_damaged_record_costs_only_its_own_volume(busybox: PrivateEngine) -> None:
    engine = busybox
    engine.proa("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "broken")
    engine.sh("echo here >/d/f", "-v", "whole:/d")
    engine.proa("run", "-d", "--name", "user", *QUIET, "-v", "broken:/d", "busybox", "sleep", "1000")
    record = engine.root / "volumes/broken/volume.json"
    record.write_bytes(record.read_bytes().replace(b"broken", b"bro\0en"))
    assert engine.out("volume", "ls", "-q").split() == ["whole"]
    assert str(record) in str(json.loads(engine.out("info", "--format", "json"))["Warnings"])
    assert b"volume.json" in engine.proa("volume", "rm", "broken", check=False).stderr
    engine.proa("rm", "-f", "user")  # which unmounts it
    engine.kill_engine()
    assert engine.sh("cat /d/f", "-v", "whole:/d") == "here"
    assert str(record.parent) not in Path("/proc/self/mountinfo").read_text()
    engine.proa("volume", "rm", "-f", "broken")
    assert not record.parent.exists()


def test_subpaths_stay_inside(box: PrivateEngine) -> None:
    box.sh("mkdir -p /d/a/b; echo deep > /d/a/b/f; ln -s /etc /d/etc; ln -s ../../../../etc /d/up; ln -s a /d/in",
           "-v", "v:/d")  # fmt: skip

    def look(subpath: str, script: str = "ls -A /x") -> subprocess.CompletedProcess[bytes]:
        mount = f"type=volume,source=v,target=/x,volume-subpath={subpath}"
        return box.proa("run", "--rm", *QUIET, "--mount", mount, "busybox", "sh", "-c", script, check=False)

    assert look("a/b", "cat /x/f").stdout == b"deep\n"
    assert look("in/b", "cat /x/f").stdout == b"deep\n"
    assert look("a/b/f", "cat /x").stdout == b"deep\n"
    for bad in ("etc", "up", "nowhere"):
        done = look(bad, "cat /x/passwd /x/hostname")
        assert done.returncode == 125, done.stdout
        assert b"cannot access path" in done.stderr
    assert look("../v").returncode == 125
    box.sh("mkdir /d/etc2 && echo own > /d/etc2/passwd && rm /d/etc && ln -s /etc2 /d/etc", "-v", "v:/d")
    assert look("etc", "cat /x/passwd").stdout == b"own\n"


def test_images_as_mounts(seeded: PrivateEngine) -> None:
    box = seeded
    mount = "type=image,source=seeded,target=/image"
    assert box.sh("cat /image/seed/a; touch /image/x 2>&1 || true", "--mount", mount).startswith("one\n")
    assert box.sh("ls /sub", "--mount", "type=image,source=seeded,target=/sub,image-subpath=seed/sub") == "b"
    assert box.sh("test -x /bb/bin/busybox && echo yes", "--mount", "type=image,source=busybox,target=/bb") == "yes"
    box.proa("create", "--name", "holder", *QUIET, "--mount", mount, "busybox", "cat", "/image/seed/a")
    box.proa("rmi", "-f", "seeded")
    box.proa("image", "prune", "-f")
    assert box.out("start", "-a", "holder") == "one"
    assert box.inspect("holder")["Mounts"][0]["Type"] == "image"
    box.proa("rm", "holder")
    missing = box.proa(
        "run", "--rm", *QUIET, "--mount", "type=image,source=nobody,target=/x", "busybox", "true", check=False
    )
    assert (missing.returncode, b"the image to mount, nobody, is not here" in missing.stderr) == (125, True)


def test_read_only_includes_the_mounts_below(box: PrivateEngine, tmp_path: Path) -> None:
    inner = tmp_path / "top/inner"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "proa-test", str(inner)], check=True)
    try:
        top = f"{tmp_path}/top"
        script = "touch /d/x 2>&1; touch /d/inner/x 2>&1; ls /d/inner"
        assert box.sh(script, "-v", f"{top}:/d:ro", check=False).count("Read-only") == 2
        plain = f"type=bind,source={top},target=/d,readonly,bind-recursive=writable"
        assert box.sh(script, "--mount", plain).splitlines()[-1] == "x"
        alone = f"type=bind,source={top},target=/d,bind-recursive=disabled"
        assert box.sh("ls /d/inner", "--mount", alone) == ""
    finally:
        subprocess.run(["umount", str(inner)], check=True)


def test_a_volume_over_a_place_of_ours(seeded: PrivateEngine) -> None:
    """What an image declares hides neither the engine's files nor anything outside the container."""
    box = seeded
    box.proa("create", "--name", "base", *QUIET, "seeded")
    box.proa("commit", "--change", "VOLUME /etc /alias", "base", "covering")
    box.proa("rm", "base")
    shown = box.sh("cat /etc/hostname /alias/a; ls -l /etc/resolv.conf", "--hostname", "named", image="covering")
    assert "named" in shown
    assert "\none\n" in shown
    for place in ("/proc/x", "/sys", "/"):
        box.proa("create", "--name", "base", *QUIET, "busybox", "true")
        box.proa("commit", "--change", f"VOLUME {place}", "base", "bad")
        box.proa("rm", "base")
        assert box.proa("run", "--rm", *QUIET, "bad", "true", check=False).returncode == 125
    # The image's place leads out by a link: what is copied is what the link means inside.
    box.proa("run", "--name", "base", *QUIET, "busybox", "sh", "-c", "ln -s ../../../../etc /out; echo in > /etc/own")
    box.proa("commit", "--change", "VOLUME /out", "base", "leading")
    box.proa("rm", "base")
    assert box.sh("cat /out/own; ls /out", image="leading").split()[0] == "in"
    assert not Path("/etc/own").exists()
