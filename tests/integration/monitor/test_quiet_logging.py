"""Containers that only write to their log: scribes come and go, nothing is lost, the monitor stays small."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from monitorlab import Lab, wait_exit, wait_until

pytestmark = pytest.mark.root


def monitor_of(lab: Lab, path: str) -> int:
    directory = next(lab.directory / c for c in lab.ids if c.startswith(Path(path).stem))
    return int(json.loads((directory / "monitor.json").read_bytes())["monitor"]["pid"])


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_lines_and_their_pieces_survive_pauses(lab: Lab) -> None:
    connection = lab.start(
        "sh", "-c", "printf one; sleep 1.5; echo ' two'; printf err >&2; sleep 1.5; echo ' or' >&2; exit 2"
    )
    assert wait_exit(connection)["status"] == 2
    assert lab.log(connection) == [("stdout", "one two\n"), ("stderr", "err or\n")]


def test_a_monitor_that_only_logs_stays_small(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "seq 1 2000; sleep 60")
    monitor = monitor_of(lab, connection.path)
    wait_until(lambda: len(lab.log(connection)) == 2000)
    wait_until(lambda: children(monitor) == [str(connection.started["pid"])])  # the scribe has gone
    assert private_kib(monitor) < 1000
    connection.kill(9)
    assert wait_exit(connection)["status"] == 137
    assert lab.log(connection)[-1] == ("stdout", "2000\n")


def test_an_exit_while_a_scribe_writes_loses_nothing(lab: Lab) -> None:
    for _ in range(3):
        connection = lab.start("sh", "-c", "seq 1 3000; exit 1")
        assert wait_exit(connection)["status"] == 1
        assert [text for _, text in lab.log(connection)] == [f"{n}\n" for n in range(1, 3001)]


def test_attaching_while_a_scribe_writes_splits_nothing(lab: Lab) -> None:
    connection = lab.start(
        "sh", "-c", "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo $n; done; read x; echo $x", stdin=True
    )
    client = lab.attach(connection)
    typist = lab.attach(connection, lab.input_only())
    typist.sendall(b"end\n")
    wait_exit(connection)
    assert [text for _, text in lab.log(connection)] == [*(f"{n}\n" for n in range(1, 401)), "end\n"]
    client.close()


def test_a_process_that_closed_its_output_is_no_busy_loop(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "exec >&- 2>&-; sleep 2")
    monitor = monitor_of(lab, connection.path)
    time.sleep(0.3)

    def ticks() -> int:
        fields = Path(f"/proc/{monitor}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.7)
    assert ticks() - before <= 1
    assert wait_exit(connection)["status"] == 0


def test_without_a_log_output_is_dropped(lab: Lab) -> None:
    connection = lab.start("sh", "-c", "yes | head -c 1000000; exit 3", log={"driver": "none"})
    assert wait_exit(connection)["status"] == 3
    assert not list(lab.container_directory(connection).glob("*.log"))
