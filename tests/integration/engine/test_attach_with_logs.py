"""`attach` with what was written before: the log first, then what comes, nothing lost between and nothing twice."""

from __future__ import annotations

import pytest
from engines import PrivateEngine, until

import proa

pytestmark = pytest.mark.root


@pytest.mark.parametrize("options", [(), ("-t",)])
def test_the_log_and_the_stream_are_one(box: PrivateEngine, options: tuple[str, ...]) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf 'no newline'; read x; echo end"
    box.proa("run", "-di", *options, "--name", "joined", "--network", "none", "busybox", "sh", "-c", script)
    with proa.connect(box.socket) as client:
        container = client.containers.get("joined")
        for _ in range(4):  # at different moments of its life
            with container.attach(logs=True) as session:
                seen = b""
                while b"no newline" not in seen:
                    output = session.read()
                    assert output is not None
                    seen += output.data
            lines = seen.replace(b"\r\n", b"\n").split(b"\n")
            assert lines == [*(b"line %d" % n for n in range(20000)), b"no newline"]
        with container.attach(logs=True) as session:
            session.write(b"go\n")
            text = b"".join(piece.data for piece in session).replace(b"\r\n", b"\n")
            assert text.endswith(b"no newlinego\nend\n" if options else b"no newlineend\n")
            assert text.count(b"line 19999\n") == 1
        assert container.wait() == 0


def test_whoever_replays_may_die(busybox: PrivateEngine) -> None:
    """The container's output goes on when the engine that held it is gone."""
    busybox.proa("run", "-d", "--name", "loud", "--network", "none", "busybox", "sh", "-c", "yes; sleep 1000")
    until(lambda: len(busybox.out("logs", "--tail", "5", "loud").split()) == 5)
    with proa.connect(busybox.socket) as client:
        session = client.containers.get("loud").attach(logs=True, stdin=False)  # and reads nothing: the engine waits
        busybox.kill_engine()
        session.close()
    before = busybox.out("logs", "-t", "--tail", "1", "loud")
    until(lambda: busybox.out("logs", "-t", "--tail", "1", "loud") != before, "more output")
