"""Containers that run out of memory: what is killed, what is told."""

from __future__ import annotations

import time

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

TIGHT = ("--network", "none", "-m", "16m", "--memory-swap", "16m")


def expect_told(box: PrivateEngine, name: str, events: list[str]) -> None:
    deadline = time.monotonic() + 10
    while (found := box.actions(name, "oom", "die")) != events and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == events


def test_a_killed_container(box: PrivateEngine) -> None:
    done = box.proa("run", "--name", "hog", *TIGHT, "busybox", "tail", "/dev/zero", check=False)
    assert done.returncode == 137
    state = box.inspect("hog")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    expect_told(box, "hog", ["oom", "die"])


def test_a_container_that_lives_on(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "tough", *TIGHT, "busybox", "sh", "-c", "tail /dev/zero; echo $?; sleep 1000")
    until(lambda: "137" in box.out("logs", "tough"), "its child to be killed")
    expect_told(box, "tough", ["oom"])
    assert box.inspect("tough")["State"]["OOMKilled"] is True
    assert box.inspect("tough")["State"]["Running"] is True
    box.proa("rm", "-f", "tough")


def test_the_next_engine_hears_of_it_too(busybox: PrivateEngine) -> None:
    box = busybox
    script = "until test -e /go; do usleep 20000; done; tail /dev/zero; echo $?; sleep 1000"
    box.proa("run", "-d", "--name", "later", *TIGHT, "busybox", "sh", "-c", script)
    box.kill_engine()
    box.proa("exec", "later", "touch", "/go")
    expect_told(box, "later", ["oom"])


def test_a_policy_restarts_it(box: PrivateEngine) -> None:
    box.proa("run", "-d", "--name", "again", *TIGHT, "--restart", "on-failure:1", "busybox", "tail", "/dev/zero")
    until(lambda: box.inspect("again")["State"]["Status"] == "exited", "it to be given up")
    assert box.inspect("again")["RestartCount"] == 1
    expect_told(box, "again", ["oom", "die"] * 2)
