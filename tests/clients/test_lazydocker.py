"""lazydocker, a dashboard in the terminal."""

from __future__ import annotations

import clients
import pytest
from engines import PrivateEngine, until
from terminals import Terminal

pytestmark = [pytest.mark.root, pytest.mark.peers]


def test_it_shows_what_there_is_and_stops_a_container(box: PrivateEngine) -> None:
    box.proa("volume", "create", "a-volume")
    ticking = ("sh", "-c", "while echo tick-tock; do sleep 1; done")
    box.proa("run", "-d", "--name", "seen", "--network", "none", "--stop-signal", "KILL", "busybox", *ticking)
    env = {**box.env, "DOCKER_HOST": box.socket, "TERM": "xterm-256color"}
    dashboard = Terminal([str(clients.lazydocker())], env, (50, 160))
    try:
        wanted = {b"seen", b"busybox", b"a-volume", b"bridge"}
        until(lambda: dashboard.expect_more() and all(word in dashboard.seen for word in wanted), "the dashboard")
        dashboard.send(b"3")  # to the containers
        dashboard.expect(b"tick-tock")
        dashboard.send(b"s")
        dashboard.expect(b"Are you sure you want to stop this container?")
        dashboard.send(b"\r")
        until(lambda: dashboard.expect_more() and box.inspect("seen")["State"]["Status"] == "exited", "the stop")
        dashboard.expect(b"exited")
        dashboard.send(b"q")
    finally:
        status = dashboard.end()
        box.proa("rm", "-f", "seen")
        box.proa("volume", "rm", "a-volume")
    assert status == 0
