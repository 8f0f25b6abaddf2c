"""Containers in user namespaces of their own: their root is nobody outside, their files are their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from proa.errors import Invalid

BASE = 0x7000_0000


def shifted(config: dict[str, Any], *, size: int = 65536) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": BASE, "size": size}]
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    config["linux"]["sysctl"]["net.ipv4.ping_group_range"] = f"0 {size - 1}"


def mapped(containers: Any) -> list[dict[str, Any]]:
    return list(containers.overlay(None, "idmap"))


def test_root_inside_is_nobody_outside(containers: Any) -> None:
    pid = containers.start("sleep", "100", change=shifted, rootfs=mapped(containers))
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}\n" in status
    assert f"Gid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}\n" in status
    own = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "net", "pid", "mnt", "ipc", "uts", "cgroup")}
    theirs = {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("user", "net", "pid", "mnt", "ipc", "uts", "cgroup")}
    assert not own & theirs
    done = containers.exec(pid, "sh", "-c", "id -u; cat /proc/self/uid_map; touch /by-exec && ls -ln /by-exec")
    assert done.stdout.split()[:4] == ["0", "0", str(BASE), "65536"]
    assert done.stdout.splitlines()[-1].split()[2:4] == ["0", "0"]
    containers.stop(pid)


def test_files_keep_their_ids_on_disk(containers: Any) -> None:
    rootfs = mapped(containers)
    upper = Path(next(o for o in rootfs[0]["options"] if o.startswith("upperdir=")).removeprefix("upperdir="))
    script = """
    ls -ln /etc/passwd | awk '{print $3, $4}'
    echo x > /new; chown 1000:1001 /new; chmod 4755 /bin/busybox
    chown 1000 /etc/group; mkdir /home/user/d; rm /etc/passwd
    ls -ln /new | awk '{print $3, $4}'
    """
    done = containers.sh(script, change=shifted, rootfs=rootfs)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["0 0", "1000 1001"]
    assert (upper / "new").stat().st_uid == 1000
    assert (upper / "new").stat().st_gid == 1001
    assert (upper / "etc/group").stat().st_uid == 1000
    assert (upper / "home/user/d").stat().st_uid == 0
    assert (upper / "bin/busybox").stat().st_mode & 0o7777 == 0o4755


def test_the_usual_isolation_is_there(containers: Any) -> None:
    script = """
    for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done
    head -c 3 /dev/zero | wc -c; echo x > /dev/null; ls /dev/pts /dev/mqueue /dev/shm >/dev/null
    hostname; cat /sys/fs/cgroup/*/tasks >/dev/null 2>&1
    (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo readonly
    cat /proc/keys /proc/timer_list | wc -c
    ls /sys/firmware | wc -l
    mkdir /sys/fs/cgroup/x 2>/dev/null || echo no cgroup
    grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
    echo out > /dev/stdout; echo err > /dev/stderr
    """
    done = containers.sh(script, change=shifted, rootfs=mapped(containers))
    lines = done.stdout.splitlines()
    assert lines[:6] == ["3", "box", "readonly", "0", "0", "no cgroup"]
    assert "CapEff:\t00000000a80425fb" in lines
    assert "Seccomp:\t2" in lines
    assert lines[-1] == "out"
    assert done.stderr == "err\n"


def test_a_user_of_the_image(containers: Any) -> None:
    done = containers.sh(
        "id; echo hi > /dev/stdout; touch /etc/x", change=shifted, rootfs=mapped(containers), user="user"
    )
    assert done.stdout.startswith("uid=1000(user) gid=1001(user) groups=10(wheel),50(staff)")
    assert done.stdout.endswith("hi\n")
    assert "Permission denied" in done.stderr


def test_binds_through_the_maps(containers: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(mode=0o700)
    (tmp_path / "in/file").write_text("of root\n")
    tmp_path.chmod(0o700)

    def change(options: list[str]) -> Any:
        def both(config: dict[str, Any]) -> None:
            shifted(config)
            row = {"destination": "/data", "type": "bind", "source": str(tmp_path / "in"), "options": options}
            config["mounts"].append(row)

        return both

    script = "ls -ln /data/file | awk '{print $3}'; echo more >> /data/file && touch /data/new; stat -c %u /data"
    done = containers.sh(script, change=change(["rbind", "idmap"]), rootfs=mapped(containers))
    assert done.stdout.splitlines() == ["0", "0"]
    assert (tmp_path / "in/new").stat().st_uid == 0
    assert (tmp_path / "in/file").read_text() == "of root\nmore\n"
    done = containers.sh("stat -c %u /data; ls /data", change=change(["rbind"]), rootfs=mapped(containers))
    assert done.stdout == "65534\n"
    assert "Permission denied" in done.stderr
    done = containers.sh("touch /data/x", change=change(["rbind", "idmap", "ro"]), rootfs=mapped(containers))
    assert "Read-only" in done.stderr


def test_an_idmapped_bind_with_maps_of_its_own(containers: Any, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        maps = [{"containerID": 0, "hostID": 1000, "size": 10}]
        row = {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["bind", "idmap"]}
        config["mounts"].append({**row, "uidMappings": maps, "gidMappings": maps})

    assert containers.sh("stat -c %u:%g /data", change=change).stdout == "1000:1000\n"


def test_a_terminal_belongs_to_the_container(containers: Any) -> None:
    pid = containers.start(
        "sh",
        "-c",
        "stat -c %u $(tty) /dev/console; echo done; sleep 100",
        change=shifted,
        rootfs=mapped(containers),
        terminal=True,
    )
    said = containers.call("read_until", pid, "done")["stdout"].split()
    assert said[:2] == ["0", "0"]
    containers.stop(pid)


def test_scores_and_limits(containers: Any) -> None:
    done = containers.sh("cat /proc/self/oom_score_adj", change=shifted, rootfs=mapped(containers), oomScoreAdj=77)
    assert done.stdout == "77\n"


def test_bad_maps_are_refused(containers: Any) -> None:
    def change(*rows: tuple[int, int, int], namespace: bool = True) -> Any:
        def edit(config: dict[str, Any]) -> None:
            if namespace:
                config["linux"]["namespaces"].append({"type": "user"})
            maps = [{"containerID": a, "hostID": b, "size": c} for a, b, c in rows]
            config["linux"] |= {"uidMappings": maps, "gidMappings": maps}

        return edit

    overlapping = change((0, BASE, 10), (5, BASE + 100, 10))
    twice = change((0, BASE, 10), (100, BASE + 5, 10))
    beyond = change((0, (1 << 32) - 10, 20))
    for edit in (change(), overlapping, twice, beyond, change((0, BASE, 10), namespace=False)):
        with pytest.raises(Invalid):
            containers.run("true", change=edit, rootfs=mapped(containers))
    with pytest.raises(Invalid, match="user namespace"):
        containers.run("true", rootfs=mapped(containers))


def test_nothing_is_left_open(containers: Any) -> None:
    containers.run("true", change=shifted, rootfs=mapped(containers))
    before = containers.call("fds")["result"]
    containers.run("true", change=shifted, rootfs=mapped(containers))
    assert containers.call("fds")["result"] == before
