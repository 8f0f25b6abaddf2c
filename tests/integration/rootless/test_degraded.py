"""The engine of a user who has no ranges of ids and nothing that connects a network: less, and a reason for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="module")
def poor(no_tun: None, user_engine: Callable[..., Any]) -> Any:
    return user_engine(ranges=False)


def test_each_lack_has_a_reason_of_one_line(poor: Any) -> None:
    warnings = json.loads(poor.out("info", "--format", "json"))["Warnings"]
    assert [w for w in warnings if w.startswith("only your own id exists in containers: /etc/subuid has no range for")]
    assert [w for w in warnings if w.startswith("containers have no network: pasta: ")]
    assert all("\n" not in w for w in warnings)


def test_containers_run_with_one_id(poor: Any) -> None:
    done = poor.proa("run", "--rm", "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u /home/user")
    assert done.stdout.decode().split() == ["0", "0", str(poor.uid), "1", "0"]
    assert b"containers have no network" in done.stderr
    done = poor.proa("run", "--rm", "--network", "none", "--user", "1000", "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"not every id of the user 1000:1000" in done.stderr


def test_the_rest_works(poor: Any) -> None:
    poor.proa("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "100")
    assert poor.out("exec", "one", "sh", "-c", "echo x > /x; echo hi > /dev/stdout; cat /x") == "hi\nx"
    poor.proa("commit", "one", "image")
    assert poor.sh("cat /x", image="image") == "x"
    poor.proa("rm", "-f", "one")


def test_the_machines_network_can_be_shared(poor: Any) -> None:
    interfaces = poor.out("run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net").split()
    assert "lo" in interfaces
    done = poor.proa("run", "--rm", "--network", "host", "busybox", "sh", "-c", "touch /sys/class/net/x", check=False)
    assert done.returncode != 0
