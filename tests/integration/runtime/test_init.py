"""Process 1 that passes signals on and collects orphans."""

from __future__ import annotations

import time
from typing import Any

import pytest

from proa.errors import NotFound


def with_init(config: dict[str, Any]) -> None:
    config["annotations"]["proa.init"] = "true"


def test_status_of_the_command_is_the_status(containers: Any) -> None:
    assert containers.sh("exit 7", change=with_init).status == 7
    assert containers.sh("kill -TERM $$", change=with_init).status == 128 + 15
    result = containers.sh("echo $$; tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/comm", change=with_init)
    assert result.stdout.startswith("2\nproa-init /bin/sh /bin/sh -c")
    assert result.stdout.endswith("proa-init\n")


def test_command_is_looked_up_before(containers: Any) -> None:
    assert containers.run("true", change=with_init).status == 0
    with pytest.raises(NotFound):
        containers.run("nosuch", change=with_init)


@pytest.mark.parametrize("number", [1, 2, 10, 15, 17 + 5])
def test_signals_are_passed_on(containers: Any, number: int) -> None:
    if number == 22:
        number = 34  # a realtime signal
    script = f"trap 'echo got; exit 9' {number}; echo ready; while :; do sleep 0.02; done"
    pid = containers.start("/bin/sh", "-c", script, change=with_init)
    containers.call("read_until", pid, "ready")
    containers.call("signal", pid, number)
    result = containers.wait(pid)
    assert (result.status, result.stdout) == (9, "ready\ngot\n")


def test_a_command_without_handler_is_ended(containers: Any) -> None:
    pid = containers.start("sleep", "100", change=with_init)
    time.sleep(0.1)
    containers.call("signal", pid, 15)
    assert containers.wait(pid).status == 143


def test_orphans_are_collected(containers: Any) -> None:
    orphans = "for i in 1 2 3 4 5; do sh -c 'sleep 0.05 &' ; done; sleep 0.5"
    script = f"{orphans}; ps -o stat,comm | grep -c '^Z'; ps -o comm | grep -c sleep"
    result = containers.sh(script, change=with_init)
    assert result.stdout.split() == ["0", "0"]


def test_runs_as_the_user_with_no_handlers_or_blocked_signals(containers: Any) -> None:
    result = containers.sh("cat /proc/self/status; readlink /proc/1/exe", change=with_init, user="user")
    assert "SigBlk:\t0000000000000000" in result.stdout
    assert "SigIgn:\t0000000000000000" in result.stdout
    assert "Uid:\t1000" in result.stdout


def test_terminal_is_in_the_commands_hands(containers: Any) -> None:
    # The word comes from cat itself: between fork and exec it would still be a shell, whose trap swallows the signal.
    script = "trap 'echo interrupted' INT; cat /proc/self/comm -; exit 4"
    pid = containers.start("/bin/sh", "-c", script, terminal=True, change=with_init)
    containers.call("read_until", pid, "cat")
    containers.call("write", pid, "\x03")
    result = containers.wait(pid)
    assert result.stdout.count("interrupted") == 1
