"""Healthchecks, from the probe to what is done about an unhealthy container."""

from __future__ import annotations

from typing import Any

import pytest
from engines import PrivateEngine, until

pytestmark = pytest.mark.root

QUIET = ("--network", "none")
FAST = ("--health-interval", "50ms", "--health-retries", "2")


def up(box: PrivateEngine, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
    """A container in the background, with health options."""
    box.proa("run", "-d", "--name", name, *QUIET, *options, "busybox", *command)


def health(box: PrivateEngine, name: str) -> Any:
    return box.inspect(name)["State"].get("Health")


def test_from_starting_to_healthy_and_back(box: PrivateEngine) -> None:
    up(box, "sick", *FAST, "--health-cmd", "echo looked at; test -e /fine")
    assert health(box, "sick")["Status"] in ("starting", "unhealthy")
    waiting = box.popen("wait", "--condition", "healthy", "sick")
    assert box.out("wait", "--condition", "unhealthy", "sick") == "0"
    assert "(unhealthy)" in box.out("ps", "--format", "{{.Status}}", "--filter", "health=unhealthy")
    box.proa("exec", "sick", "touch", "/fine")
    assert waiting.communicate(timeout=30)[0] == b"0\n"
    seen = health(box, "sick")
    assert (seen["Status"], seen["FailingStreak"]) == ("healthy", 0)
    assert seen["Log"][-1]["ExitCode"] == 0
    assert seen["Log"][-1]["Output"] == "looked at\n"
    assert 1 <= len(seen["Log"]) <= 5
    assert seen["Log"][-1]["Start"] < seen["Log"][-1]["End"]
    assert box.actions("sick", "health_status") == ["health_status: unhealthy", "health_status: healthy"]
    assert "(healthy)" in box.out("ps", "--format", "{{.Status}}")
    box.proa("stop", "-t", "0", "sick")
    assert health(box, "sick")["Status"] == "unhealthy"


def test_a_probe_that_takes_too_long_is_ended(box: PrivateEngine) -> None:
    up(box, "slow", *FAST, "--health-timeout", "150ms", "--health-cmd", "echo begun; sleep 4321")
    until(lambda: health(box, "slow")["Log"], "a result")
    result = health(box, "slow")["Log"][0]
    assert (result["ExitCode"], result["Output"]) == (-1, "Health check exceeded timeout (150ms): begun\n")
    box.proa("pause", "slow")
    rows = box.out("top", "slow")
    assert rows.count("sleep 4321") <= 1, rows


def test_much_output_is_cut_and_blocks_nothing(box: PrivateEngine) -> None:
    up(box, "loud", *FAST, "--health-cmd", "head -c 3000000 /dev/zero | tr '\\0' x")
    until(lambda: health(box, "loud")["Status"] == "healthy", "health")
    assert health(box, "loud")["Log"][-1]["Output"] == "x" * 4096


def test_a_probe_that_cannot_be_run(box: PrivateEngine) -> None:
    up(box, "odd", *FAST, "--health-cmd", "no-such-program")
    until(lambda: health(box, "odd")["Status"] == "unhealthy", "illness")
    assert health(box, "odd")["Log"][-1]["ExitCode"] == 127


def test_the_start_period_forgives(box: PrivateEngine) -> None:
    up(box, "young", *FAST, "--health-start-period", "1m", "--health-start-interval", "20ms", "--health-cmd", "false")
    until(lambda: len(health(box, "young")["Log"]) == 5, "probes")
    assert (health(box, "young")["Status"], health(box, "young")["FailingStreak"]) == ("starting", 0)


def test_nothing_is_probed_while_paused(box: PrivateEngine) -> None:
    up(box, "still", *FAST, "--health-cmd", "true")
    until(lambda: health(box, "still")["Status"] == "healthy", "health")
    box.proa("pause", "still")
    first = health(box, "still")["Log"][-1]
    box.sh("usleep 200000")
    assert health(box, "still")["Log"][-1] == first
    box.proa("unpause", "still")
    until(lambda: health(box, "still")["Log"][-1] != first, "the next probe")


@pytest.mark.parametrize(
    ("action", "restart", "expected"),
    [
        ("kill", "no", "exited"),
        ("stop", "always", "exited"),
        ("kill", "always", "running"),
        ("restart", "no", "running"),
    ],
)
def test_what_is_done_about_illness(box: PrivateEngine, action: str, restart: str, expected: str) -> None:
    options = ("--health-cmd", "false", "--health-on-failure", action, "--restart", restart, "--stop-timeout", "0")
    up(box, "treated", *FAST, *options)
    pid = box.inspect("treated")["State"]["Pid"]
    until(lambda: box.inspect("treated")["State"]["Pid"] != pid, "something to be done")
    until(lambda: box.inspect("treated")["State"]["Status"] == expected, f"it to be {expected}")


def test_the_image_says_how_and_the_user_may_forbid(box: PrivateEngine) -> None:
    up(box, "made", "--health-cmd", "echo from the image", *FAST, "--health-on-failure", "kill")
    box.proa("commit", "made", "checked:1")
    assert "OnFailure" not in box.inspect("checked:1")["Config"]["Healthcheck"]
    box.proa("run", "-d", "--name", "second", *QUIET, "checked:1", "sleep", "1000")
    until(lambda: health(box, "second")["Status"] == "healthy", "health")
    assert health(box, "second")["Log"][-1]["Output"] == "from the image\n"
    box.proa("run", "-d", "--name", "third", *QUIET, "--no-healthcheck", "checked:1", "sleep", "1000")
    assert health(box, "third") is None
    refused = box.proa("wait", "--condition", "healthy", "third", check=False)
    assert (refused.returncode, b"has no healthcheck" in refused.stderr) == (1, True)
    box.proa("rm", "-f", "made", "second", "third")
    box.proa("rmi", "checked:1")


def test_waiting_for_health_ends_with_the_container(box: PrivateEngine) -> None:
    up(box, "brief", "--health-cmd", "true", command=("sleep", "0.3"))
    done = box.proa("wait", "--condition", "healthy", "brief", check=False)
    assert done.returncode == 1
    assert b"has ended with status 0 before that" in done.stderr


def test_the_next_engine_goes_on_checking(busybox: PrivateEngine) -> None:
    box = busybox
    up(box, "lasting", *FAST, "--health-cmd", "test -e /fine")
    until(lambda: health(box, "lasting")["Status"] == "unhealthy", "illness")
    box.kill_engine()
    box.proa("exec", "lasting", "touch", "/fine")
    until(lambda: health(box, "lasting")["Status"] == "healthy", "health")
    assert box.actions("lasting", "health_status") == ["health_status: unhealthy", "health_status: healthy"]
