from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.engine.volumes.options import Backing, parse_options
from proa.errors import Invalid
from proa.linux import mount as m


def test_a_plain_volume_is_a_directory() -> None:
    assert parse_options({}) == Backing()
    assert not parse_options({"uid": "1000", "gid": "50", "mode": "2770"}).mounted
    assert parse_options({"uid": "1000", "gid": "50", "mode": "2770"}) == Backing(uid=1000, gid=50, mode=0o2770)
    assert parse_options({"o": "uid=7,gid=8"}) == Backing(uid=7, gid=8)


def test_what_mount_takes() -> None:
    found = parse_options({"type": "tmpfs", "device": "tmpfs", "o": "size=100m,uid=1000,noexec,ro"})
    assert found.mounted
    assert (found.fstype, found.device, found.data) == ("tmpfs", "tmpfs", "size=100m,uid=1000")
    assert found.flags == m.MS_NOEXEC | m.MS_RDONLY
    found = parse_options({"type": "nfs", "device": ":/export", "o": "addr=192.0.2.1,rw,nfsvers=4"})
    assert found.data == "addr=192.0.2.1,nfsvers=4"
    assert parse_options({"type": "none", "device": "/srv", "o": "bind"}).flags == m.MS_BIND


def test_sizes() -> None:
    for text, size in (("1048576", 1 << 20), ("2m", 2 << 20), ("1G", 1 << 30), ("3MiB", 3 << 20), ("5kb", 0)):
        if size:
            assert parse_options({"size": text}).size_bytes == size
        else:
            with pytest.raises(Invalid, match="too small"):
                parse_options({"size": text})
    assert parse_options({"o": "size=4m"}).size_bytes == 4 << 20


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"colour": "red"}, 'invalid option: "colour"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "/srv"}, 'missing required option: "type"'),
        ({"o": "addr=1.2.3.4"}, 'missing required option: "type"'),
        ({"size": "much"}, "invalid size: 'much'"),
        ({"size": "1xb"}, "invalid size"),
        ({"uid": "root"}, "invalid uid"),
        ({"uid": "4294967295"}, "invalid uid"),
        ({"mode": "999"}, "invalid mode"),
        ({"mode": "77777"}, "invalid mode"),
        ({"type": "tmpfs", "device": "tmpfs", "size": "1m"}, "cannot have a type"),
    ],
)
def test_what_is_refused(options: dict[str, str], text: str) -> None:
    with pytest.raises(Invalid, match=text):
        parse_options(options)


@given(st.dictionaries(st.sampled_from(["type", "device", "o", "size", "uid", "gid", "mode"]), st.text(max_size=12)))
def test_anything_is_read_or_refused(options: dict[str, str]) -> None:
    try:
        found = parse_options(options)
    except Invalid:
        return
    assert found.fstype == options.get("type", "")
    assert found.size_bytes >= 0
