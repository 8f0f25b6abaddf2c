"""What apply makes of well-formed layers, on its own and on top of others."""

import os
import stat

import pytest
from layer_applying import applied
from layer_archives import archive, contents, directory, hard_link, member, pax, read_tree, symlink

from proa.errors import Corrupt, Exhausted, Unsupported
from proa.storage.layers import overlay
from proa.storage.layers.budget import Budget


@pytest.fixture
def layers(tmp_path):
    """Apply archives on top of each other; gives the directories, uppermost first."""

    def stack(*archives):
        directories = []
        for number, data in enumerate(archives):
            target = tmp_path / f"layer{number}"
            applied(data, target, directories)
            directories.insert(0, target)
        return directories

    return stack


def is_whiteout(path):
    st = os.lstat(path)
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def is_opaque(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return overlay.is_opaque(fd, overlay.USER)
    finally:
        os.close(fd)


def test_files_keep_mode_time_and_content(layers):
    (top,) = layers(archive(member(b"f", data=b"hi", mode=0o4751, mtime=5), member(b"g", data=b"", mode=0)))
    st = os.stat(top / "f")
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns, (top / "f").read_bytes()) == (0o4751, 5 * 10**9, b"hi")
    assert stat.S_IMODE(os.stat(top / "g").st_mode) == 0


def test_nanoseconds_before_and_far_after_the_epoch(layers):
    times = {b"a": b"1.000000001", b"b": b"-1.5", b"c": b"99999999999", b"d": b"-99999999999"}
    (top,) = layers(archive(*[pax([(b"mtime", t)]) + member(n) for n, t in times.items()]))
    assert os.stat(top / "a").st_mtime_ns == 1000000001
    assert os.stat(top / "b").st_mtime_ns == -1500000000
    assert os.stat(top / "c").st_mtime_ns > 2**32 * 10**9
    assert os.stat(top / "d").st_mtime_ns < 0


def test_directories_get_their_time_and_mode_after_their_files(layers):
    (top,) = layers(
        archive(
            directory(b"d", mode=0o2555, mtime=7),
            member(b"d/f", data=b"x"),
            directory(b"d/e", mode=0),
            member(b"d/e/g"),
        )
    )
    st = os.stat(top / "d")
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o2555, 7 * 10**9)
    assert stat.S_IMODE(os.stat(top / "d/e").st_mode) == 0
    assert os.stat(top / "d/f").st_gid == os.getegid()


def test_the_root_entry_describes_the_root(layers):
    (top,) = layers(archive(directory(b"./", mode=0o711, mtime=3), member(b"./f")))
    st = os.stat(top)
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o711, 3 * 10**9)


def test_a_layer_without_a_root_entry_keeps_the_root_below(layers):
    top, _ = layers(archive(directory(b"./", mode=0o711, mtime=3)), archive(member(b"f")))
    st = os.stat(top)
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o711, 3 * 10**9)


def test_a_first_layer_without_a_root_entry_has_a_plain_root(layers):
    (top,) = layers(archive(member(b"f")))
    assert stat.S_IMODE(os.stat(top).st_mode) == 0o755


def test_implied_directories_look_like_those_below(layers):
    top, *_ = layers(
        archive(directory(b"a", mode=0o750, mtime=3), directory(b"a/b", mode=0o1777, mtime=4)),
        archive(directory(b"a", mode=0o700, mtime=5)),
        archive(member(b"a/b/c/f", mtime=9)),
    )
    modes = [(stat.S_IMODE(os.stat(top / p).st_mode), os.stat(top / p).st_mtime) for p in ("a", "a/b", "a/b/c")]
    assert modes == [(0o700, 5), (0o1777, 4), (0o755, 9)]


@pytest.mark.parametrize(
    "first", [member(b"p", data=b"old"), directory(b"p") + member(b"p/x/y", data=b"z"), symlink(b"p", b"t")]
)
@pytest.mark.parametrize(
    ("second", "wanted"),
    [
        (member(b"p", data=b"new"), b"-new"),
        (directory(b"p"), b"d"),
        (symlink(b"p", b"u"), b"lu"),
        (member(b"p", b"6"), b"p"),
        (member(b"s", data=b"s") + hard_link(b"p", b"s"), b"-s"),
    ],
)
def test_the_last_of_a_name_wins(layers, first, second, wanted):
    (top,) = layers(archive(first, second))
    assert contents(read_tree(top))[b"p"] == wanted


def test_a_directory_twice_is_one_directory_with_the_last_attributes(layers):
    (top,) = layers(
        archive(directory(b"d", mode=0o700), member(b"d/f", data=b"x"), directory(b"d", mode=0o711, mtime=8))
    )
    assert contents(read_tree(top)) == {b"d": b"d", b"d/f": b"-x"}
    assert (stat.S_IMODE(os.stat(top / "d").st_mode), os.stat(top / "d").st_mtime) == (0o711, 8)


def test_hard_links_share_their_file(layers):
    (top,) = layers(archive(member(b"f", data=b"x"), hard_link(b"d/g", b"./f"), hard_link(b"h", b"/d/g")))
    assert os.stat(top / "f").st_nlink == 3
    assert os.stat(top / "h").st_ino == os.stat(top / "f").st_ino


def test_a_hard_link_to_a_symlink_is_one(layers):
    (top,) = layers(archive(symlink(b"s", b"/nowhere"), hard_link(b"t", b"s")))
    assert contents(read_tree(top)) == {b"s": b"l/nowhere", b"t": b"l/nowhere"}


def test_a_hard_link_to_a_lower_file_brings_it_up(layers):
    top, below = layers(
        archive(directory(b"d", mode=0o711), member(b"d/f", data=b"x" * 100000, mode=0o640, mtime=4)),
        archive(hard_link(b"g", b"d/f"), hard_link(b"h", b"g")),
    )
    assert os.stat(top / "g").st_ino == os.stat(top / "h").st_ino == os.stat(top / "d/f").st_ino
    st = os.stat(top / "g")
    assert (st.st_size, stat.S_IMODE(st.st_mode), st.st_mtime, st.st_nlink) == (100000, 0o640, 4, 3)
    assert stat.S_IMODE(os.stat(top / "d").st_mode) == 0o711
    assert os.stat(below / "d/f").st_nlink == 1


def test_a_hard_link_through_a_lower_symlink(layers):
    top, _ = layers(
        archive(directory(b"usr/lib"), member(b"usr/lib/f", data=b"x"), symlink(b"lib", b"usr/lib")),
        archive(hard_link(b"g", b"lib/f")),
    )
    assert contents(read_tree(top))[b"usr/lib/f"] == b"-x"
    assert os.stat(top / "g").st_nlink == 2


def test_a_hard_link_to_a_deleted_file_is_refused(layers):
    with pytest.raises(Exception, match="not there"):
        layers(archive(member(b"f", data=b"x")), archive(member(b".wh.f"), hard_link(b"g", b"f")))


def test_files_below_a_link_of_the_same_layer_go_where_it_leads(layers):
    (top,) = layers(archive(directory(b"run"), symlink(b"var/run", b"/run"), member(b"var/run/pid", data=b"1")))
    assert contents(read_tree(top)) == {b"run": b"d", b"run/pid": b"-1", b"var": b"d", b"var/run": b"l/run"}


def test_a_dangling_link_is_followed_inside(layers):
    (top,) = layers(archive(symlink(b"l", b"../x/./y"), member(b"l/f", data=b"1")))
    assert contents(read_tree(top))[b"x/y/f"] == b"-1"


# ---- whiteouts


def test_whiteouts_become_overlays_own(layers):
    top, _ = layers(
        archive(member(b"f"), directory(b"d"), member(b"d/g")), archive(member(b".wh.f"), member(b"d/.wh.g"))
    )
    assert is_whiteout(top / "f")
    assert is_whiteout(top / "d/g")


def test_whiteouts_of_nothing_leave_no_trace(layers):
    (top,) = layers(archive(member(b".wh.f"), member(b"k")))
    assert sorted(os.listdir(top)) == ["k"]


def test_opaque_directories(layers):
    top, _ = layers(
        archive(directory(b"d"), member(b"d/f")), archive(member(b"d/g"), member(b"d/.wh..wh..opq"), member(b"d/h"))
    )
    assert is_opaque(top / "d")
    assert sorted(os.listdir(top / "d")) == ["g", "h"]


def test_an_opaque_root_whites_out_what_is_there(layers):
    top, _ = layers(
        archive(member(b"f"), directory(b"d"), member(b"g")),
        archive(member(b".wh..wh..opq"), member(b"g"), directory(b"d")),
    )
    assert is_whiteout(top / "f")
    assert is_opaque(top / "d")
    assert stat.S_ISREG(os.lstat(top / "g").st_mode)


@pytest.mark.parametrize("again", [directory(b"d"), member(b"d/new")])
@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_directory_deleted_and_made_again_is_empty(layers, again, whiteout_first):
    marks = [member(b".wh.d"), again] if whiteout_first else [again, member(b".wh.d")]
    top, _ = layers(archive(directory(b"d", mode=0o700), member(b"d/old")), archive(*marks))
    assert is_opaque(top / "d")


def test_a_file_deleted_and_made_again(layers):
    top, _ = layers(archive(member(b"f")), archive(member(b".wh.f"), member(b"f", data=b"new")))
    assert contents(read_tree(top)) == {b"f": b"-new"}


def test_a_directory_made_again_after_a_file_in_its_place(layers):
    top, _ = layers(archive(member(b"d/old")), archive(member(b".wh.d"), member(b"d"), directory(b"d")))
    assert is_opaque(top / "d")


def test_implied_directories_in_an_opaque_one_are_plain(layers):
    top, _ = layers(
        archive(directory(b"d/e", mode=0o700)), archive(directory(b"d"), member(b"d/.wh..wh..opq"), member(b"d/e/f"))
    )
    assert stat.S_IMODE(os.stat(top / "d/e").st_mode) == 0o755


# ---- attributes and limits


def test_user_attributes_are_kept(layers):
    (top,) = layers(
        archive(
            pax([(b"SCHILY.xattr.user.k", b"v\0w")]),
            member(b"f"),
            pax([(b"SCHILY.xattr.user.d", b"")]),
            directory(b"d"),
        )
    )
    assert os.getxattr(top / "f", "user.k") == b"v\0w"
    assert os.getxattr(top / "d", "user.d") == b""


def test_user_attributes_of_links_are_dropped(layers):
    (top,) = layers(archive(pax([(b"SCHILY.xattr.user.k", b"v")]), symlink(b"l", b"x")))
    assert os.listxattr(top / "l", follow_symlinks=False) == []


def test_a_volume_label_is_no_file(layers):
    (top,) = layers(archive(member(b"LABEL", b"V"), member(b"f")))
    assert os.listdir(top) == ["f"]


def test_a_fifo(layers):
    (top,) = layers(archive(member(b"p", b"6", mode=0o622)))
    assert stat.S_ISFIFO(os.lstat(top / "p").st_mode)
    assert stat.S_IMODE(os.lstat(top / "p").st_mode) == 0o622


def test_counts(tmp_path):
    data = archive(directory(b"d"), member(b"d/f", data=b"12345"), hard_link(b"g", b"d/f"), symlink(b"s", b"t"))
    assert tuple(applied(data, tmp_path / "t"))[:3] == (6, 4, 3)


def test_unknown_types_name_the_entry(tmp_path):
    with pytest.raises(Unsupported, match="'odd'"):
        applied(archive(member(b"odd", b"Q")), tmp_path / "t")


def test_the_umask_comes_back_and_no_descriptor_is_lost(tmp_path):
    before = os.umask(0o027)
    open_before = len(os.listdir("/proc/self/fd"))
    try:
        for number, data in enumerate(
            [archive(*[member(b"d%d/f" % n) for n in range(300)]), archive(member(b"f"))[:100], b""]
        ):
            try:
                applied(data, tmp_path / str(number))
            except Corrupt:
                assert number == 1
        assert os.umask(0o027) == 0o027
        assert len(os.listdir("/proc/self/fd")) == open_before
    finally:
        os.umask(before)


def test_budgets_are_passed_on(tmp_path):
    with pytest.raises(Exhausted):
        applied(archive(member(b"a"), member(b"b")), tmp_path / "t", budget=Budget(entries=1))
