"""Mount options and overlay layer lists."""

import pytest

from proa.errors import Invalid, Unsupported
from proa.linux import mount as m
from proa.runtime.mount_options import parse_mount_options
from proa.runtime.steps.rootfs import split_layers


def test_sorted_by_what_takes_them() -> None:
    options = parse_mount_options(["nosuid", "noexec", "nodev", "ro", "mode=1777", "newinstance", "relatime"], "/x")
    assert options.attr_set == m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_RDONLY
    assert options.settings == (("mode", "1777"), ("newinstance", None))
    assert options.readonly
    assert not options.bind


def test_later_options_win() -> None:
    options = parse_mount_options(["ro", "rw", "noatime", "strictatime"], "/x")
    assert options.attr_set == m.MOUNT_ATTR_STRICTATIME
    assert options.attr_clr & m.MOUNT_ATTR_RDONLY
    assert options.attr_clr & m.MOUNT_ATTR__ATIME == m.MOUNT_ATTR__ATIME


def test_binds_and_propagation() -> None:
    options = parse_mount_options(["rbind", "rro", "rslave", "shared"], "/x")
    assert (options.bind, options.recursive) == (True, True)
    assert options.rec_set == m.MOUNT_ATTR_RDONLY
    assert options.propagation == ((m.MS_SLAVE, True), (m.MS_SHARED, False))
    assert options.shared
    assert options.readonly


def test_what_is_not_an_attribute() -> None:
    assert parse_mount_options(["bind", "sync", "dirsync"], "/x").settings == ()
    assert parse_mount_options(["sync", "size=1m"], "/x").settings == (("sync", None), ("size", "1m"))
    assert parse_mount_options(["tmpcopyup"], "/x").copy_up
    assert parse_mount_options(["bind", "remount", "ro"], "/x").remount


def test_refused() -> None:
    for option in ("move", "copy-symlink"):
        with pytest.raises(Unsupported):
            parse_mount_options([option], "/x")
    for options in (["bind", "size=1"], ["mode=\0"], ["x=" + "y" * 256]):
        with pytest.raises(Invalid):
            parse_mount_options(options, "/x")


@pytest.mark.parametrize(
    ("value", "layers"),
    [("/a", ["/a"]), ("/a:/b:/c", ["/a", "/b", "/c"]), (r"/a\:b:/c", ["/a:b", "/c"]), (r"/a\\:/b", ["/a\\", "/b"])],
)
def test_layers(value: str, layers: list[str]) -> None:
    assert split_layers(value) == layers
