"""A mounted overlay is the judge: layers show what a model says, and a diff applied again shows the same tree."""

import functools
import io
import os
import stat
import struct
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_applying import applied
from layer_archives import archive, directory, hard_link, member, read_tree, symlink

from proa.linux.mount import MS_NODEV, MS_PRIVATE, MS_RDONLY, MS_REC, mount, umount2
from proa.linux.process import CLONE_NEWNS, unshare
from proa.storage.layers import diff, tar_tree

pytestmark = pytest.mark.root

OPTIONS = "redirect_dir=nofollow,index=off,metacopy=off"
THOROUGH = settings(
    max_examples=int(os.environ.get("PROA_EXAMPLES", "80")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def in_own_mounts(test):
    """Run a test in a child process with a mount namespace of its own: no mount can be left behind."""

    @functools.wraps(test)
    def wrapper(*arguments, **named):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                unshare(CLONE_NEWNS)
                mount("none", "/", "", MS_REC | MS_PRIVATE)
                test(*arguments, **named)
            except BaseException:
                os.write(write, traceback.format_exc()[-60000:].encode())
                os._exit(1)
            os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            report = pipe.read().decode()
        _, status = os.waitpid(pid, 0)
        assert status == 0, report

    return wrapper


class Stack:
    """Layer directories, uppermost first, and an overlay of them."""

    def __init__(self, root):
        self.root = root
        self.layers = []
        self.merged = root / "merged"
        self.merged.mkdir(parents=True)

    def apply(self, data):
        target = self.root / f"layer{len(self.layers)}"
        applied(data, target, self.layers, keep_owner=True, prefix="trusted.overlay.")
        self.layers.insert(0, target)

    def look(self):
        # Two lowers at least: with one there would be nothing to merge.
        (self.root / "empty").mkdir(exist_ok=True)
        lowers = ":".join([*map(str, self.layers), str(self.root / "empty")])
        mount("overlay", str(self.merged), "overlay", MS_RDONLY | MS_NODEV, f"lowerdir={lowers},{OPTIONS}")
        try:
            return read_tree(self.merged, overlay=False)
        finally:
            umount2(str(self.merged), 0)

    def change(self, work):
        """Call `work` with a writable mount; gives the upper directory."""
        upper = self.root / f"layer{len(self.layers)}"
        (self.root / "work").mkdir(exist_ok=True)
        upper.mkdir()
        lowers = ":".join([*map(str, self.layers), str(self.root / "empty")])
        (self.root / "empty").mkdir(exist_ok=True)
        options = f"lowerdir={lowers},upperdir={upper},workdir={self.root / 'work'},{OPTIONS}"
        mount("overlay", str(self.merged), "overlay", MS_NODEV, options)
        try:
            work(self.merged)
        finally:
            umount2(str(self.merged), 0)
        return upper


# ---- the model: what a stack of layers means


NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
KINDS = st.sampled_from(["file", "file", "dir", "dir", "link", "whiteout", "whiteout", "opaque"])
LAYER = st.lists(st.tuples(KINDS, PATHS, st.integers(0, 9)), max_size=8)


def parents(path):
    parts = path.split(b"/")
    return [b"/".join(parts[:n]) for n in range(1, len(parts))]


def entry(kind, path, number):
    head, _, base = path.rpartition(b"/")
    sep = head + b"/" if head else b""
    return {
        "file": lambda: member(path, data=b"%d" % number, mode=0o600 + number, uid=number, mtime=number),
        "dir": lambda: directory(path, mode=0o710 + number % 8, gid=number, mtime=number),
        "link": lambda: symlink(path, b"target%d" % number, mtime=number),
        "whiteout": lambda: member(sep + b".wh." + base),
        "opaque": lambda: member(path + b"/.wh..wh..opq"),
    }[kind]()


def sensible(layer):
    """Leave out entries whose meaning is up to the engine: below a file of the same layer, or a directory again where a
    file has replaced one."""
    made, replaced, kept = {}, set(), []
    for kind, path, number in layer:
        ways = [*parents(path), *([path] if kind == "opaque" else [])]
        if any(made.get(p) in ("file", "link") for p in ways):
            continue
        if kind == "dir" and (path in replaced or made.get(path) in ("file", "link")):
            continue
        if kind in ("file", "link") and made.get(path) == "dir":
            replaced.add(path)
            made = {p: k for p, k in made.items() if not p.startswith(path + b"/")}
        made.update(dict.fromkeys(ways, "dir"))
        if kind in ("file", "dir", "link"):
            made[path] = kind
        kept.append((kind, path, number))
    return kept


def model(tree, layer):
    """Apply a sensible layer to {path: (kind, mode, uid, gid, mtime, content)}."""
    hidden, own = set(), {}
    for kind, path, number in layer:
        for way in [*parents(path), *([path] if kind == "opaque" else [])]:
            own.setdefault(way, None)  # implied
        if kind in ("file", "link"):
            own = {p: v for p, v in own.items() if not p.startswith(path + b"/")}
            hidden.add(path)
        if kind == "file":
            own[path] = ("-", 0o600 + number, number, 0, number, b"%d" % number)
        elif kind == "link":
            own[path] = ("l", 0o777, 0, 0, number, b"target%d" % number)
        elif kind == "dir":
            own[path] = ("d", 0o710 + number % 8, 0, number, number, b"")
        elif kind == "whiteout":
            hidden.add(path)
        else:
            hidden.add(path + b"/")
    gone = {
        p
        for p in tree
        if any(
            p == h or p.startswith(h.rstrip(b"/") + b"/") for h in hidden if p != h.rstrip(b"/") or not h.endswith(b"/")
        )
    }
    below = {p: v for p, v in tree.items() if p not in gone}
    for path in sorted(own):
        value = own[path]
        under = below.get(path)
        if value is None:
            value = under if under and under[0] == "d" else ("d", 0o755, 0, 0, None, b"")
        if value[0] != "d" or not under or under[0] != "d":
            below = {p: v for p, v in below.items() if not p.startswith(path + b"/") or p in own}
        below[path] = value
    return below


@in_own_mounts
def check_against_model(root):
    count = 0

    @THOROUGH
    @given(st.lists(LAYER, min_size=1, max_size=4))
    def check(layers):
        nonlocal count
        count += 1
        stack, tree = Stack(root / str(count)), {}
        for layer in map(sensible, layers):
            stack.apply(archive(*[entry(*e) for e in layer]))
            tree = model(tree, layer)
            shown = {
                path: (
                    n.kind,
                    n.mode,
                    n.uid,
                    n.gid,
                    None if tree.get(path, (0,) * 5)[4] is None else n.mtime_ns // 10**9,
                    n.content,
                )
                for path, n in stack.look().items()
            }
            assert shown == tree

    check()


def test_layers_show_what_the_model_says(tmp_path):
    check_against_model(tmp_path)


# ---- diff


def work_on(merged, operations):
    """Do what a container may do; what cannot be done is passed over."""
    for what, one, other, number in operations:
        path, second = os.path.join(os.fsencode(merged), one), os.path.join(os.fsencode(merged), other)
        try:
            if what == "write":
                os.makedirs(os.path.dirname(path), exist_ok=True)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
                os.write(fd, b"%d" % number * 700)
                os.close(fd)
            elif what == "mkdir":
                os.makedirs(path, exist_ok=True)
            elif what == "remove":
                remove(path)
            elif what == "rename":
                os.rename(path, second)
            elif what == "link":
                os.link(path, second, follow_symlinks=False)
            elif what == "symlink":
                os.symlink(b"t%d" % number, path)
            elif what == "node":
                # Major 120 is for local use: nothing answers there, and the mount has no devices anyway.
                os.mknod(path, (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)[number % 3] | 0o640, os.makedev(120, number))
            elif what == "chmod":
                os.chmod(path, 0o1700 + number)
            elif what == "chown":
                os.chown(path, number, number + 100_000, follow_symlinks=False)
            elif what == "touch":
                os.utime(path, ns=(number, number * 10**9 + number), follow_symlinks=False)
            elif what == "open":
                os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK))
            elif what == "xattr":
                os.setxattr(path, "user.k", b"%d" % number, follow_symlinks=False)
            elif what == "capability":
                os.setxattr(path, "security.capability", CAPABILITY, follow_symlinks=False)
            elif what == "acl":
                name = "system.posix_acl_default" if os.path.isdir(path) and number % 2 else "system.posix_acl_access"
                os.setxattr(path, name, access_list(number), follow_symlinks=False)
            elif what == "sparse":
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
                os.ftruncate(fd, number << 18)
                os.pwrite(fd, b"%d" % number * 900, number << 15)
                os.close(fd)
        except OSError:
            pass


# Version 2 of the attribute (capabilities(7)): permitted and effective CAP_NET_RAW.
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def access_list(number):
    """acl(5) as the kernel stores it: version 2, then tag, permissions, id each; user `number` gets some too."""
    none = 0xFFFFFFFF
    entries = [(0x01, 7, none), (0x02, number % 8, 1000 + number), (0x04, 5, none), (0x10, 7, none), (0x20, 1, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def remove(path):
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        remove(os.path.join(path, name))
    os.rmdir(path)


WHAT = [
    "write",
    "write",
    "mkdir",
    "remove",
    "remove",
    "rename",
    "link",
    "symlink",
    "node",
    "chmod",
    "chown",
    "touch",
    "open",
    "xattr",
    "capability",
    "acl",
    "sparse",
]
# Names that tars, shells and terminals stumble over: blanks, line ends, no UTF-8, PAX's own syntax, 250 bytes.
ODD_NAMES = st.sampled_from(
    [b"a", b"b", b" ", b"\n", b"\xff\xfe", b"12 path=x\n", b"caf\xc3\xa9", b"\\", b"n" * 250, b"-"]
)
ODD_PATHS = st.lists(st.one_of(NAMES, ODD_NAMES), min_size=1, max_size=3).map(b"/".join)
OPERATIONS = st.lists(st.tuples(st.sampled_from(WHAT), ODD_PATHS, ODD_PATHS, st.integers(0, 63)), max_size=15)


@in_own_mounts
def check_diffs(root):
    count = 0

    @THOROUGH
    @given(st.lists(OPERATIONS, min_size=1, max_size=3))
    def check(rounds):
        nonlocal count
        count += 1
        stack = Stack(root / str(count))
        for number, operations in enumerate(rounds):
            upper = stack.change(lambda merged, todo=operations: work_on(merged, todo))
            lowers = list(stack.layers)
            stack.layers.insert(0, upper)
            shown = stack.look()
            sink = io.BytesIO()
            result = diff(upper, lowers, sink, nanoseconds=True)
            # The whole tree, without a mount, is what the mount shows.
            whole = io.BytesIO()
            tar_tree(stack.layers, whole, nanoseconds=True)
            applied(whole.getvalue(), stack.root / f"whole{number}", keep_owner=True)
            assert read_tree(stack.root / f"whole{number}") == shown
            # The layer applied to the same lowers shows the same tree, and has the same diff.
            again = stack.root / f"again{number}"
            applied(sink.getvalue(), again, lowers, keep_owner=True, prefix="trusted.overlay.")
            stack.layers[0] = again
            assert stack.look() == shown
            assert diff(again, lowers, io.BytesIO(), nanoseconds=True) == result

    check()


def test_a_diff_applied_again_shows_the_same_tree(tmp_path):
    check_diffs(tmp_path)


@in_own_mounts
def check_marks(root):
    """Cases the random trees reach seldom."""
    stack = Stack(root)
    stack.apply(archive(directory(b"d"), member(b"d/f", data=b"x"), member(b"g"), directory(b"e"), member(b"e/h")))
    stack.apply(archive(member(b".wh..wh..opq"), member(b"d/n"), hard_link(b"o", b"d/n")))
    assert sorted(stack.look()) == [b"d", b"d/n", b"o"]
    stack.apply(archive(member(b".wh.nothing"), member(b"new/.wh.nothing")))
    assert sorted(stack.look()) == [b"d", b"d/n", b"new", b"o"]
    stack.apply(archive(member(b".wh.d"), member(b".wh.o"), member(b"d/.wh.x"), member(b"d/z")))
    assert sorted(stack.look()) == [b"d", b"d/z", b"new"]
    stack.apply(archive(member(b"secret", b"3"), member(b"new", b"3")))
    assert sorted(stack.look()) == [b"d", b"d/z", b"new"]


def test_marks_at_the_root_and_for_nothing(tmp_path):
    check_marks(tmp_path)
