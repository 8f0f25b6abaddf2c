from __future__ import annotations

from typing import Any

from proa.cli.commands.images import image_rows
from proa.cli.commands.ps import container_row, port_text
from proa.cli.commands.stats import stats_row
from proa.cli.output import table
from proa.cli.terminal import printable


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = table(["ID", "IMAGE", "NAMES"], [["1", "registry.example/long", "a"], ["2", "x", "b"]])
    assert text.splitlines() == [
        "ID        IMAGE                   NAMES",
        "1         registry.example/long   a",
        "2         x                       b",
    ]


def test_a_table_fits_the_terminal_by_shortening_the_widest() -> None:
    text = table(["ID", "IMAGE", "NAMES"], [["1", "i" * 60, "n" * 50]], width=60)
    lines = text.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].count("…") == 2
    assert lines[1].startswith("1 ")


def test_nothing_is_cut_without_a_terminal() -> None:
    assert "i" * 300 in table(["A", "B"], [["1", "i" * 300]])


def test_a_cell_cannot_break_its_line() -> None:
    assert table(["A"], [["x\ny\tz"]]).splitlines() == ["A", "x y z"]


def test_text_without_control_characters_stays_as_it_is() -> None:
    assert printable("plain ünïcode\n", 1) == "plain ünïcode\n"


def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "Type": kind} | ({"PublicPort": public, "IP": ip} if public else {})


def test_ports_are_joined_into_runs() -> None:
    assert port_text([]) == ""
    assert port_text([port(80)]) == "80/tcp"
    assert port_text([port(80, 8080, "0.0.0.0")]) == "0.0.0.0:8080->80/tcp"
    assert port_text([port(80, 8080, "::")]) == "[::]:8080->80/tcp"
    runs = [port(80, 8000, "0.0.0.0"), port(81, 8001, "0.0.0.0"), port(53, kind="udp"), port(54, kind="udp")]
    assert port_text(runs) == "0.0.0.0:8000-8001->80-81/tcp, 53-54/udp"


CONTAINER: dict[str, Any] = {
    "Id": "ab" * 32,
    "Image": "sha256:" + "cd" * 32,
    "Command": "/bin/sh -c 'a long command line'",
    "Created": 1_700_000_000,
    "Status": "Up 3 hours",
    "State": "running",
    "Names": ["/web"],
    "Labels": {"b": "2", "a": "1"},
    "NetworkSettings": {"Networks": {"bridge": {}}},
    "Mounts": [{"Type": "bind", "Source": "/a/very/long/source"}],
}


def test_containers_are_shortened_unless_asked_not_to() -> None:
    row = container_row(CONTAINER)
    assert (row["ID"], row["Image"], row["Names"]) == ("ab" * 6, "cd" * 6, "web")
    assert row["Command"] == '"/bin/sh -c \'a long …"'
    assert (row["Labels"], row["Networks"], row["Mounts"]) == ("a=1,b=2", "bridge", "/a/very/long/s…")
    full = container_row(CONTAINER, full=True)
    assert (full["ID"], full["Command"]) == ("ab" * 32, "\"/bin/sh -c 'a long command line'\"")


def test_an_image_has_a_row_for_each_of_its_names() -> None:
    record = {"Id": "sha256:" + "ab" * 32, "Created": 1_700_000_000, "Size": 5_000_000}
    rows = image_rows({**record, "RepoTags": ["a:1", "localhost:5000/a:2"], "RepoDigests": ["a@sha256:x"]})
    assert [(r["Repository"], r["Tag"], r["Size"]) for r in rows] == [
        ("a", "1", "5MB"),
        ("localhost:5000/a", "2", "5MB"),
    ]
    assert [r["Tag"] for r in image_rows(record)] == ["<none>"]
    rows = image_rows({**record, "RepoTags": None, "RepoDigests": ["a@sha256:x"]})
    assert [(r["Repository"], r["Tag"]) for r in rows] == [("a", "<none>")]
    rows = image_rows({**record, "RepoTags": ["a:1"], "RepoDigests": ["a@sha256:x"]}, digests=True)
    assert [r["Digest"] for r in rows] == ["sha256:x"]


def test_usage_is_a_share_of_the_time_between_two_samples() -> None:
    row = stats_row(
        {
            "id": "ab" * 32,
            "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 300 << 20, "limit": 1 << 30, "stats": {"total_inactive_file": 44 << 20}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 6}]},
            "pids_stats": {"current": 4},
        }
    )
    assert row["CPUPerc"] == "40.00%"
    assert (row["MemUsage"], row["MemPerc"]) == ("256MiB / 1GiB", "25.00%")
    assert (row["NetIO"], row["BlockIO"], row["PIDs"], row["Name"]) == ("1kB / 2kB", "5B / 6B", "4", "web")
    assert stats_row({})["CPUPerc"] == "0.00%"
