"""Restart policies: what comes back after its end, an engine's, and the machine's boot."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from engines import PrivateEngine, kill_and_wait, until

pytestmark = pytest.mark.root

QUIET = ("--network", "none")


def up(box: PrivateEngine, name: str, policy: str, *command: str) -> None:
    """A container in the background with a restart policy."""
    box.proa("run", "-d", "--name", name, *QUIET, "--restart", policy, "busybox", *(command or ("sleep", "1000")))


def state(box: PrivateEngine, name: str) -> Any:
    return box.inspect(name)["State"]


def test_on_failure_a_limited_number_of_times(box: PrivateEngine) -> None:
    up(box, "failing", "on-failure:2", "sh", "-c", "echo try; exit 3")
    until(lambda: state(box, "failing")["Status"] == "exited", "it to be given up")
    seen = box.inspect("failing")
    assert (seen["RestartCount"], seen["State"]["ExitCode"]) == (2, 3)
    assert box.out("logs", "failing") == "try\ntry\ntry"
    assert box.actions("failing") == ["create", *["start", "die"] * 3]
    box.proa("start", "failing")
    until(lambda: box.out("logs", "failing").count("try") == 6, "it to be tried as often again")


def test_success_is_no_failure(box: PrivateEngine) -> None:
    up(box, "content", "on-failure", "true")
    assert box.out("wait", "content") == "0"
    assert box.inspect("content")["RestartCount"] == 0


def test_killed_from_outside_it_comes_back(box: PrivateEngine) -> None:
    up(box, "hardy", "always")
    pid = state(box, "hardy")["Pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: state(box, "hardy")["Pid"] not in (0, pid), "it to run again")
    assert box.inspect("hardy")["RestartCount"] == 1


@pytest.mark.parametrize("how", [("stop", "-t", "0"), ("kill",)])
def test_stopped_by_a_user_it_stays_so(box: PrivateEngine, how: tuple[str, ...]) -> None:
    up(box, "stopped", "always")
    box.proa(*how, "stopped")
    box.proa("wait", "stopped")
    assert state(box, "stopped")["Status"] == "exited"
    assert box.inspect("stopped")["RestartCount"] == 0


def test_a_signal_that_does_not_stop_it_keeps_the_policy(box: PrivateEngine) -> None:
    up(box, "hup", "on-failure", "sh", "-c", "trap 'exit 7' HUP; echo up; while :; do usleep 10000; done")
    until(lambda: box.out("logs", "hup"), "it to be up")
    box.proa("kill", "-s", "HUP", "hup")
    until(lambda: box.inspect("hup")["RestartCount"] == 1, "it to be started again")


def test_while_it_waits_for_its_restart(box: PrivateEngine) -> None:
    up(box, "waits", "always", "false")
    until(lambda: state(box, "waits")["Restarting"] and box.inspect("waits")["RestartCount"] > 3, "a longer pause")
    assert state(box, "waits")["Running"] is True
    assert "Restarting (1)" in box.out("ps", "--format", "{{.Status}}", "--filter", "status=restarting")
    refused = box.proa("exec", "waits", "true", check=False)
    assert b"is restarting, wait until the container is running" in refused.stderr
    refused = box.proa("rm", "waits", check=False)
    assert (refused.returncode, b"restarting container" in refused.stderr) == (1, True)
    assert box.out("start", "waits") == "waits"  # as with one that runs
    assert box.out("stop", "waits") == "waits"
    assert state(box, "waits")["Status"] == "exited"
    count = box.inspect("waits")["RestartCount"]
    box.proa("update", "--restart", "no", "waits")
    assert box.inspect("waits")["RestartCount"] == count


def test_removed_by_force_while_it_waits(box: PrivateEngine) -> None:
    up(box, "gone", "always", "false")
    until(lambda: state(box, "gone")["Restarting"], "a pause")
    box.proa("rm", "-f", "gone")
    assert box.containers() == []


def test_a_restart_that_cannot_be_started_is_tried_again(box: PrivateEngine, tmp_path: Path) -> None:
    source = tmp_path / "there"
    source.mkdir()
    box.proa(
        *("run", "-d", "--name", "mounted", *QUIET, "--restart", "always", "-v", f"{source}:/data", "busybox"),
        *("sh", "-c", "sleep 0.2; exit 1"),
    )
    source.rmdir()
    until(lambda: state(box, "mounted")["Error"], "a start to fail")
    source.mkdir()
    until(lambda: state(box, "mounted")["Status"] == "running", "it to run again")


def test_the_next_engine_restarts_what_ended_meanwhile(busybox: PrivateEngine) -> None:
    box = busybox
    up(box, "lasting", "unless-stopped")
    up(box, "over", "no")
    before = {name: state(box, name)["Pid"] for name in ("lasting", "over")}
    box.kill_engine()
    for pid in before.values():
        kill_and_wait(pid)
    until(lambda: state(box, "lasting")["Pid"] not in (0, before["lasting"]), "it to run again")
    assert state(box, "over")["Status"] == "exited"


def test_without_an_engine_the_monitor_starts_one(busybox: PrivateEngine) -> None:
    box = busybox
    up(box, "over", "no")
    up(box, "hardy", "on-failure")
    before = {name: state(box, name)["Pid"] for name in ("over", "hardy")}
    monitor = box.monitor_pid("over")
    box.kill_engine()
    kill_and_wait(before["over"])
    until(lambda: not Path(f"/proc/{monitor}").exists(), "the end of a container nobody wants back")
    assert not box.running()
    kill_and_wait(before["hardy"])
    until(box.running, "an engine")
    found = until(lambda: recorded_pid(box), "its container")
    assert found != before["hardy"]
    assert state(box, "hardy")["Pid"] == found
    assert box.inspect("hardy")["RestartCount"] == 1


def recorded_pid(box: PrivateEngine) -> int:
    """The process of the one container that runs, without asking (and so starting) an engine."""
    records = [json.loads(path.read_text()) for path in (box.root / "containers").glob("*/monitor.json")]
    return int(records[0]["pid"]) if records else 0


def test_boot(busybox: PrivateEngine) -> None:
    box = busybox
    for name, policy in (("a", "always"), ("b", "unless-stopped"), ("c", "on-failure"), ("d", "no")):
        up(box, f"ran-{name}", policy)
        up(box, f"stopped-{name}", policy)
        box.proa("stop", "-t", "0", f"stopped-{name}")
    box.proa("create", "--name", "never-started", *QUIET, "--restart", "always", "busybox", "true")
    power_off(box)
    assert sorted(box.out("boot").split()) == ["ran-a", "ran-b", "stopped-a"]
    assert set(box.out("ps", "--format", "{{.Names}}").split()) == {"ran-a", "ran-b", "ran-c", "stopped-a"}
    assert box.actions("ran-a")[-2:] == ["die", "start"]
    box.proa("stop", "-t", "0", "stopped-a")
    box.kill_engine()  # an engine's end is no boot
    box.proa("ps")
    assert state(box, "stopped-a")["Status"] == "exited"
    assert sorted(box.out("boot").split()) == ["ran-a", "ran-b", "stopped-a"]


def power_off(box: PrivateEngine) -> None:
    """What the machine's end leaves: no process, no run directory, and records of another boot."""
    box.kill_engine()
    for path in (box.root / "containers").glob("*/monitor.json"):
        record = json.loads(path.read_text())
        kill_and_wait(record["monitor"]["pid"])
        kill_and_wait(record["pid"])
        path.write_text(json.dumps({**record, "boot_id": "another"}))
    shutil.rmtree(box.run_dir)


def test_the_unit_file_is_one(box: PrivateEngine, tmp_path: Path) -> None:
    unit = box.out("system", "unit")
    assert f"Environment=PROA_ROOT={box.root} PROA_RUN={box.run_dir}" in unit
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert command.endswith("/proa system service")
    assert os.access(command.removeprefix("ExecStart=").split()[0], os.X_OK)
    assert "KillMode=process" in unit  # else stopping the service would end the containers
