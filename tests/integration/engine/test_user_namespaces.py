"""User namespaces as users ask for them: ranges of their own, maps, volumes, commits, networks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PrivateEngine


def outside(engine: PrivateEngine, name: str) -> int:
    """Who the first process of a running container is on the machine."""
    pid = engine.inspect(name)["State"]["Pid"]
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("Uid:"))
    return int(line.split()[1])


def test_auto_gives_each_container_its_own_range(box: PrivateEngine) -> None:
    for name in ("one", "two", "three"):
        box.proa("run", "-d", "--name", name, "--userns", "auto", "busybox", "sleep", "100")
    found = [outside(box, name) for name in ("one", "two", "three")]
    assert len({uid // 65536 for uid in found}) == 3
    assert all(0x7000_0000 <= uid < 0x8000_0000 and uid % 65536 == 0 for uid in found)
    assert box.out("exec", "two", "cat", "/proc/self/uid_map").split() == ["0", str(found[1]), "65536"]
    # Recorded: the same again after a restart, and what was given back is given out again.
    box.proa("restart", "-t", "0", "two")
    assert outside(box, "two") == found[1]
    box.proa("rm", "-f", "two")
    box.proa(
        "run", "-d", "--name", "four", "--network", "none", "--userns", "auto:size=1000", "busybox", "sleep", "100"
    )
    assert outside(box, "four") == found[1]
    assert box.out("exec", "four", "cat", "/proc/self/gid_map").split() == ["0", str(found[1]), "1000"]


def test_root_inside_works_as_root(box: PrivateEngine) -> None:
    script = """
    id -u; stat -c %u:%g /bin/busybox /etc/hosts /etc/resolv.conf /tmp
    echo y > /etc/new && chown user:user /etc/new && stat -c %U /etc/new
    su user -c 'id -u; touch /etc/x 2>/dev/null || echo refused'
    hostname; ip addr show eth0 | grep -c inet; ping -c1 -w5 127.0.0.1 >/dev/null && echo ping
    cat /proc/sys/net/ipv4/ping_group_range
    """
    said = box.out("run", "--rm", "--userns", "auto", "--hostname", "inner", "busybox", "sh", "-c", script).splitlines()
    assert said[:5] == ["0", "0:0", "0:0", "0:0", "0:0"]
    assert said[5:10] == ["user", "1000", "refused", "inner", "1"]
    assert said[10:] == ["ping", "0\t65535"]


def test_a_container_reaches_others_and_is_reached(box: PrivateEngine) -> None:
    serve = "while :; do echo hello | nc -l -p 80; done"
    box.proa("run", "-d", "--name", "server", "--userns", "auto", "busybox", "sh", "-c", serve)
    address = box.inspect("server")["NetworkSettings"]["IPAddress"]
    fetch = f"for i in 1 2 3 4 5 6 7 8 9; do nc {address} 80 </dev/null && break; sleep 0.2; done"
    assert box.out("run", "--rm", "--userns", "auto", "busybox", "sh", "-c", fetch) == "hello"


def test_volumes_have_the_same_owners_in_every_namespace(box: PrivateEngine, tmp_path: Path) -> None:
    write = "touch /data/root; su user -c 'touch /data/tmp/user'"
    script = f"mkdir -p /data/tmp; chmod 1777 /data/tmp; {write}"
    box.sh(script, "--userns", "auto", "-v", "shared:/data")
    look = "stat -c %u /data/root /data/tmp/user"
    assert box.sh(look, "--userns", "auto", "-v", "shared:/data").split() == ["0", "1000"]
    assert box.sh(look, "-v", "shared:/data").split() == ["0", "1000"]
    # A directory of the machine is shown as it is, or mapped when asked.
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    show = "stat -c %u /data/file"
    assert box.sh(show, "--userns", "auto", "-v", f"{tmp_path}:/data") == "65534"
    assert box.sh(f"{show}; touch /data/new", "--userns", "auto", "-v", f"{tmp_path}:/data:idmap") == "0"
    assert (tmp_path / "new").stat().st_uid == 0


def test_commit_and_copy_need_not_know(box: PrivateEngine) -> None:
    box.proa("run", "--name", "made", "--userns", "auto", "busybox", "sh", "-c", "echo x > /new; chown 1000:1000 /new")
    box.proa("commit", "made", "of-made")
    assert box.sh("stat -c %u:%g /new; cat /new", image="of-made") == "1000:1000\nx"
    box.proa("rmi", "of-made")


def test_maps_as_given(box: PrivateEngine) -> None:
    maps = ("--uidmap", "0:200000:1000", "--uidmap", "5000:300000:10", "--gidmap", "0:400000:2000")
    assert box.sh("cat /proc/self/uid_map /proc/self/gid_map", *maps).split() == [
        *("0", "200000", "1000", "5000", "300000", "10"),
        *("0", "400000", "2000"),
    ]
    assert box.sh("id -u", *maps, "--user", "5003") == "5003"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--userns", "auto", "--privileged"), "privileged mode is incompatible with user namespaces"),
        (("--userns", "auto", "--network", "host"), "cannot share the host's network namespace"),
        (("--userns", "auto", "--pid", "host"), "cannot share the host's PID namespace"),
        (("--userns", "auto", "--ipc", "host"), "cannot share the host's IPC namespace"),
        (("--userns", "auto:size=0"), "invalid option of --userns=auto"),
        (("--userns", "auto:size=4000000000"), "invalid option"),
        (("--userns", "auto:size=1000000000"), "there are no 1000000000 ids left"),
        (("--userns", "magic"), "invalid USER mode: magic"),
        (("--userns", "keep-id"), "keep-id is only supported in rootless mode"),
        (("--uidmap", "0:0"), "invalid id mapping"),
        (("--uidmap", "0:4294967290:100"), "out of range"),
        (("--uidmap", "5:100000:100"), "must say what 0 is outside"),
        (("--uidmap", "0:100000:10", "--uidmap", "5:200000:10"), "overlap"),
        (("--userns", "remap:nobody-of-this-name"), "no ranges of nobody-of-this-name"),
    ],
)
def test_contradictions_are_refused(box: PrivateEngine, options: tuple[str, ...], message: str) -> None:
    done = box.proa("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode == 125, done.stderr
    assert message in done.stderr.decode()
    assert box.containers() == []


@pytest.fixture
def remapped(busybox_tar: Path) -> Iterator[PrivateEngine]:
    private = PrivateEngine(Path(tempfile.mkdtemp(prefix="proa-test-")))
    private.env["PROA_CONFIG"] = str(private.directory / "proa.toml")
    Path(private.env["PROA_CONFIG"]).write_text('userns-remap = "auto"\nuserns-range = "2000000:131072"\n')
    private.proa("import", str(busybox_tar), "busybox")
    yield private
    private.close()


def test_the_default_can_be_configured(remapped: PrivateEngine) -> None:
    look = "cat /proc/self/uid_map"
    assert remapped.sh(look).split() in (["0", "2000000", "65536"], ["0", "2065536", "65536"])
    assert remapped.sh(look, "--userns", "host").split() == ["0", "0", "4294967295"]
    for name in ("one", "two"):
        remapped.proa("create", "--name", name, "busybox", "true")
    # No more ids than configured; of a container that was never created nothing is left.
    done = remapped.proa("create", "--name", "three", "busybox", "true", check=False)
    assert b"there are no 65536 ids left" in done.stderr
    assert sorted(remapped.containers()) == ["one", "two"]
    # The next engine knows what is taken.
    remapped.proa("system", "stop")
    assert b"no 65536 ids left" in remapped.proa("create", "busybox", "true", check=False).stderr
    remapped.proa("rm", "one")
    remapped.proa("run", "--rm", "busybox", "true")
    maps = json.loads((remapped.root / "containers" / remapped.inspect("two")["Id"] / "container.json").read_text())
    assert maps["id_maps"]["uids"][0][2] == 65536
