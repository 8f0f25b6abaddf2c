from __future__ import annotations

from pathlib import Path

from proa.engine.processes import _block_io_v1, _block_io_v2


def test_io_of_version_one(tmp_path: Path) -> None:
    (tmp_path / "blkio.throttle.io_service_bytes_recursive").write_text(
        "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n"
    )
    found = _block_io_v1(tmp_path)
    assert found["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "Read", "value": 4096},
        {"major": 8, "minor": 0, "op": "Write", "value": 512},
        {"major": 8, "minor": 0, "op": "Total", "value": 4608},
    ]
    assert found["io_serviced_recursive"] == []


def test_io_of_version_two(tmp_path: Path) -> None:
    (tmp_path / "io.stat").write_text("254:0 rbytes=4096 wbytes=0 rios=1 wios=2 dbytes=9 dios=1\n253:1 \n")
    found = _block_io_v2(tmp_path)
    assert found["io_service_bytes_recursive"] == [
        {"major": 254, "minor": 0, "op": "read", "value": 4096},
        {"major": 254, "minor": 0, "op": "write", "value": 0},
    ]
    assert [entry["value"] for entry in found["io_serviced_recursive"]] == [1, 2]


def test_no_files_no_io(tmp_path: Path) -> None:
    assert _block_io_v2(tmp_path) == {"io_service_bytes_recursive": [], "io_serviced_recursive": []}
