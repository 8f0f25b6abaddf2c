"""Progress as Docker's JSON lines."""

from proa.oci import Descriptor
from proa.transfer.progress import Meter, ProgressEvent, progress_bar, short_id
from proa.transfer.pull_progress import LayerLines


def test_wire_forms():
    assert ProgressEvent(status="Pulling fs layer", id="abc").to_wire() == {
        "status": "Pulling fs layer",
        "progressDetail": {},
        "id": "abc",
    }
    line = ProgressEvent(status="Downloading", id="abc", current=50, total=100).to_wire()
    assert line["progressDetail"] == {"current": 50, "total": 100}
    assert line["progress"].startswith("[=========================>")
    assert ProgressEvent(status="Digest: x").to_wire() == {"status": "Digest: x"}
    assert ProgressEvent(message="Loaded image: x\n").to_wire() == {"stream": "Loaded image: x\n"}
    assert ProgressEvent(aux={"Tag": "x"}).to_wire() == {"progressDetail": {}, "aux": {"Tag": "x"}}


def test_bar():
    assert progress_bar(100, 100) == "[" + "=" * 50 + "]  100B/100B"
    assert progress_bar(0, 2_100_000) == "[>" + " " * 49 + "]  0B/2.1MB"
    assert progress_bar(200, 100).count("=") == 50
    assert progress_bar(1500, 0) == "   1.5kB"


def test_meter_is_quiet_between_its_intervals():
    lines = []
    meter = Meter(lines.append, "Downloading", "x", 1000)
    for _ in range(1000):
        meter.add(1)
    assert meter.current == 1000
    assert len(lines) <= 3


def layer(c):
    return Descriptor(media_type="x", digest="sha256:" + c * 64, size=100)


def test_layer_lines_keep_dockers_order_although_work_overlaps():
    lines = []
    a, b, c = layer("a"), layer("b"), layer("c")
    told = LayerLines(lines.append)
    told.begin([a, b, c], there={c.digest}, unpacked={c.digest}, width=1)
    told.extracting(a, 10)
    told.unpack_status(a, "unpacking")
    told.downloading(a, 50)
    told.unpack_status(a, "unpacked")
    told.downloaded(a)
    told.downloaded(b)
    told.extracting(b, 100)
    told.unpack_status(b, "unpacked")

    def of(d):
        return [e.status for e in lines if e.id == short_id(d.digest)]

    assert of(a) == ["Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Pull complete"]
    assert of(b) == [
        "Pulling fs layer",
        "Waiting",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ]
    assert of(c) == ["Already exists"]
