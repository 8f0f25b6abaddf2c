"""Copies out of and into containers that try to lead them elsewhere: what is read and written is the container's."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from engines import PROA, PrivateEngine, until

import proa

pytestmark = pytest.mark.root


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host, outside of every container, that must stay as it is."""
    directory = tmp_path / "canary"
    directory.mkdir()
    (directory / "file").write_text("host")
    yield directory
    assert sorted(os.listdir(directory)) == ["file"]
    assert (directory / "file").read_text() == "host"


@contextlib.contextmanager
def container(box: PrivateEngine, script: str, *options: str, name: str = "victim") -> Iterator[proa.Container]:
    """A running container, seen by the SDK."""
    box.proa("run", "-d", "--name", name, "--network", "none", *options, "busybox", "sh", "-c", f"{script}; sleep 1000")
    with proa.connect(box.socket) as client:
        found = client.containers.get(name)
        until(lambda: found.exec(["test", "-e", "/ready"]).exit_code == 0)
        yield found
    box.proa("rm", "-f", "-v", name)


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def members(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [f"{m.name} {m.linkname}".strip() for m in tar]


@pytest.mark.parametrize("running", [True, False])
def test_v17_links_stay_inside(box: PrivateEngine, canary: Path, tmp_path: Path, running: bool) -> None:
    script = (
        f"mkdir -p /a {canary}; echo inside > {canary}/file; ln -s {canary}/file /a/l; ln -s {canary} /a/d;"
        " touch /ready"
    )
    with container(box, script) as victim:
        if not running:
            victim.kill()
            victim.wait()
        assert members(b"".join(victim.get_archive("/a/l"))) == [f"l {canary}/file"]
        assert victim.stat_path("/a/l").link_target == f"{canary}/file"
        out = tmp_path / "out"
        box.proa("cp", "-L", f"{victim.id}:/a/l", str(out))
        assert out.read_text() == "inside\n"
        victim.put_archive("/a/d", archive(new=b"from outside", file=b"changed"))
        victim.put_archive("/a", archive(**{"d/deeper/new": b"too"}))
        box.proa("cp", str(out), f"{victim.id}:/a/d/again")
        assert [m for m in members(b"".join(victim.get_archive(str(canary)))) if "/" in m] == [
            *("canary/again", "canary/deeper", "canary/deeper/new", "canary/file", "canary/new"),
        ]


def test_v16_v72_a_path_that_is_swapped_all_the_time(box: PrivateEngine, canary: Path) -> None:
    """The container exchanges a directory and a link to the host's canary; a volume's target takes part."""
    swap = (
        f"mkdir -p /s/real {canary}; touch {canary}/inside; ln -s {canary} /s/link; touch /s/real/in; touch /ready;"
        "while :; do mv /s/real /s/t; mv /s/link /s/real; mv /s/t /s/link;"
        " mv /s/real /s/t; mv /s/link /s/real; mv /s/t /s/link; done"
    )
    with container(box, swap, "-v", "/s/vol") as victim:
        outcomes = set()
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            for path in ("/s/real", "/s/link/."):
                try:
                    victim.put_archive(path, archive(planted=b"x"))
                    names = members(b"".join(victim.get_archive(path)))
                    assert not any("file" in n for n in names), names
                    outcomes.add("done")
                except (proa.NotFound, proa.Invalid, proa.Unavailable) as error:
                    outcomes.add(type(error).__name__)
        assert "done" in outcomes


def test_v03_compressed_archives_start_no_program_of_the_image(box: PrivateEngine) -> None:
    script = (
        "for p in xz unpigz gzip bzip2 zstd; do printf '#!/bin/sh\\ntouch /marker' > /bin/$p; chmod +x /bin/$p; done;"
        " touch /ready"
    )
    with container(box, script) as victim:
        for head in (b"\xfd7zXZ\0", b"BZh9", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"):
            with pytest.raises(proa.ProaError):
                victim.put_archive("/tmp", head + b"junk" * 100)
        assert victim.exec(["test", "-e", "/marker"]).exit_code == 1


@pytest.mark.parametrize("pack", [bytes, bz2.compress, lzma.compress, gzip.compress, zstandard.compress])
def test_archives_come_in_any_compression(engine: PrivateEngine, pack: Callable[[bytes], bytes]) -> None:
    """Docker's five; what is placed in containers has the limits of layers."""
    config = engine.directory / "proa.toml"
    config.write_text("[limits]\nfile-bytes = 5000\n")
    engine.env["PROA_CONFIG"] = str(config)
    created = "created"
    engine.proa("create", "--name", created, "hello")
    with proa.connect(engine.socket) as client:
        found = client.containers.get(created)
        found.put_archive("/", pack(archive(packed=b"x" * 5000)))
        (held,) = members(b"".join(found.get_archive("/packed")))
        assert held == "packed"
        with pytest.raises(proa.Exhausted, match=r"more than 5000 bytes in a file at 'large' \(file-bytes\)"):
            found.put_archive("/", pack(archive(large=b"x" * 5001)))


def test_v18_v41_nothing_of_the_host_is_seen_of_the_visitor(box: PrivateEngine) -> None:
    """A container in the host's pid namespace finds no way through the process that copies."""
    with container(box, "mkfifo /pipe; touch /ready") as victim:
        assert members(b"".join(victim.get_archive("/proc/1/status"))) == ["status"]
        with pytest.raises(proa.NotFound):
            victim.stat_path("/proc/self/root")  # the visitor is no process of the container's
        assert [p for p in members(b"".join(victim.get_archive("/"))) if p.startswith("/proc")] == ["/proc"]
        assert members(b"".join(victim.get_archive("/pipe"))) == ["pipe"]


def test_what_is_read_only_stays_so(box: PrivateEngine, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    box.proa(
        "run", "--name", "ro", "--network", "none", "--read-only", "-v", f"{host}:/h:ro", "-v", "/rw", "busybox", "true"
    )
    with proa.connect(box.socket) as client:
        stopped = client.containers.get("ro")
        for path in ("/tmp", "/h"):
            with pytest.raises(proa.Denied):
                stopped.put_archive(path, archive(x=b""))
        stopped.put_archive("/rw", archive(x=b"volume"))
        assert members(b"".join(stopped.get_archive("/rw"))) == ["rw", "rw/x"]
    assert os.listdir(host) == []
    box.proa("rm", "-v", "ro")


def test_owners_and_kinds(box: PrivateEngine) -> None:
    box.proa("create", "--name", "own", "--user", "1000:50", "busybox", "true")
    with proa.connect(box.socket) as client:
        created = client.containers.get("own")
        created.put_archive("/tmp", archive(theirs=b"", d=b""))
        created.put_archive("/tmp", archive(mine=b""), own=True)
        with tarfile.open(fileobj=io.BytesIO(b"".join(created.get_archive("/tmp")))) as tar:
            owners = {m.name: (m.uid, m.gid) for m in tar}
        assert owners["tmp/theirs"] == (0, 0)
        assert owners["tmp/mine"] == (1000, 50)
        with pytest.raises(proa.Invalid, match="cannot overwrite non-directory"):
            created.put_archive("/tmp", _directory("d"))
        created.put_archive("/tmp", _directory("d"), replace_kinds=True)
        with pytest.raises(proa.Invalid, match="leaves"):
            created.put_archive("/tmp", archive(**{"../../etc/x": b""}))
        with pytest.raises(proa.Invalid, match="not a directory"):
            created.put_archive("/bin/busybox", archive(x=b""))
    box.proa("rm", "own")


def _directory(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    return out.getvalue()


def test_a_large_copy_costs_no_memory_and_ends_with_its_client(box: PrivateEngine) -> None:
    with container(box, "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; touch /ready") as victim:
        stream = victim.get_archive("/big")
        assert len(next(stream)) > 0
        stream.close()
        assert sum(len(piece) for piece in victim.get_archive("/big")) > 200 << 20
        copying = subprocess.run(
            f"dd if=/dev/zero bs=1M count=50 2>/dev/null | {PROA} cp - victim:/tmp",
            shell=True,
            capture_output=True,
            env=box.env,
            check=False,
        )  # zeros are the end of an archive
        assert copying.returncode == 0, copying.stderr
        with pytest.raises(proa.NotFound):
            victim.stat_path("/tmp/x")
