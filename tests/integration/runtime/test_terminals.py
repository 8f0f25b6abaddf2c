"""Terminals of containers and of processes that join them."""

from __future__ import annotations

from typing import Any


def test_terminal_is_the_containers_own(containers: Any) -> None:
    script = "tty; ls -l /dev/console; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; ls -1 /dev/pts"
    result = containers.sh(script, terminal=True, consoleSize={"height": 33, "width": 101})
    lines = result.stdout.replace("\r", "").splitlines()
    assert lines[0] == "/dev/pts/0"
    assert lines[1].startswith("crw--w----") or lines[1].startswith("crw-------")
    assert "33 101" in lines
    assert "all" in lines
    assert "ptmx" in lines
    assert "0" in lines


def test_size_changes_and_interrupts_arrive(containers: Any) -> None:
    script = (
        'trap "stty size; exit 3" WINCH; trap "echo interrupted; exit 4" INT; echo ready; while :; do sleep 0.05; done'
    )
    pid = containers.start("/bin/sh", "-c", script, terminal=True)
    containers.call("read_until", pid, "ready")
    containers.call("resize", pid, 12, 34)
    result = containers.wait(pid)
    assert result.status == 3
    assert "12 34" in result.stdout
    pid = containers.start("/bin/sh", "-c", script, terminal=True)
    containers.call("read_until", pid, "ready")
    containers.call("write", pid, "\x03")
    result = containers.wait(pid)
    assert result.status == 4
    assert "interrupted" in result.stdout


def test_a_user_owns_its_terminal(containers: Any) -> None:
    result = containers.sh("stat -c %u $(tty); echo x > /dev/console && echo wrote", terminal=True, user="user")
    assert result.stdout.replace("\r", "").split() == ["1000", "x", "wrote"]


def test_joining_process_gets_a_terminal_in_the_container(containers: Any) -> None:
    pid = containers.start("cat")
    result = containers.exec(pid, "/bin/sh", "-c", "tty; test -t 0 && echo yes", terminal=True)
    assert result.stdout.replace("\r", "").split() == ["/dev/pts/0", "yes"]
    containers.stop(pid)
