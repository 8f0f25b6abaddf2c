"""Images of as many layers as Docker allows, and more: all of them show, containers run, commit and go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engines import PrivateEngine
from oci_images import Image, tar

from proa.errors import Unsupported
from proa.storage.overlay_options import MAX_LOWER, overlay_mount

BUSYBOX = tar(("bin", None), ("bin/sh", Path("/bin/busybox").read_bytes()), ("etc", None))


@pytest.mark.root
def test_an_image_of_127_layers_runs_and_is_mounted(box: PrivateEngine, tmp_path: Path) -> None:
    layers = [BUSYBOX]
    for number in range(1, 127):
        gone = [(f"etc/.wh.from{number - 2}", b"")] if number > 2 else []
        layers.append(tar((f"etc/from{number}", b"%d" % number), ("etc/last", b"%d" % number), *gone))
    box.proa("load", stdin=Image(*layers, how="none").archive("docker.io/tests/many:127"))
    # More paths than one page of mount options holds.
    shown = box.sh("cat /etc/last; echo; ls /etc | grep -c from; cat /etc/from126 /etc/from125", image="tests/many:127")
    assert shown == "126\n2\n126125"
    (target := tmp_path / "mounted").mkdir()
    box.proa("image", "mount", "tests/many:127", str(target))
    try:
        assert (target / "etc/last").read_text() == "126"
        assert sorted(os.listdir(target / "etc")) == ["from125", "from126", "last"]
        with pytest.raises(OSError, match="Read-only"):
            (target / "etc/new").touch()
    finally:
        box.proa("image", "unmount", str(target))
    assert not os.path.ismount(target)
    box.proa("run", "--name", "top", "--network", "none", "tests/many:127", "sh", "-c", "echo top > /etc/last")
    box.proa("commit", "top", "tests/many:128")
    box.proa("rm", "top")
    assert box.sh("cat /etc/last", image="tests/many:128") == "top"
    assert len(box.inspect("tests/many:128")["RootFS"]["Layers"]) == 128


def test_more_than_overlay_takes_is_refused_in_words() -> None:
    lowers = [f"/root/snapshots/{number}/fs" for number in range(MAX_LOWER + 1)]
    assert len([o for o in overlay_mount(lowers[:-1], "/u", "/w").options if o.startswith("lowerdir+=")]) == MAX_LOWER
    with pytest.raises(Unsupported, match="the image has 501 layers, overlay mounts at most 500"):
        overlay_mount(lowers, "/u", "/w")
