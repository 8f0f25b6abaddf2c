"""Unpacking in a user namespace, and without the right to chroot."""

import os
import stat
import subprocess
import sys

import pytest
from layer_archives import archive, directory, member, read_tree, symlink

from proa.storage.layers.inventory import compare, read_inventory

pytestmark = pytest.mark.root

DATA = archive(
    directory(b"d", mode=0o700),
    member(b"d/f", data=b"x", mode=0o4755),
    member(b"null", b"3", major=1, minor=3),
    member(b"p", b"6"),
    symlink(b"l", b"/etc"),
    member(b"l/inside", data=b"y"),
    directory(b"locked", mode=0),
    member(b"locked/secret", data=b"s", mode=0),
)
TOP = archive(member(b".wh.p"), directory(b"d"), member(b"d/.wh..wh..opq"))
PROGRAM = """
import io, sys
from pathlib import Path
from proa.storage.layers import Unpacker
root = Path(sys.argv[1])
with Unpacker(keep_owner=False) as unpacker:
    for name, parents in (("low", []), ("top", [root / "low"])):
        (root / name).mkdir()
        listed = root / (name + ".inventory")
        unpacker.unpack(open(root / (name + ".tar"), "rb"), "none", root / name, parents, inventory=listed)
"""


@pytest.mark.parametrize(
    ("how", "nested"),
    [
        (["/usr/bin/unshare", "--user", "--map-root-user"], True),
        (["/usr/bin/setpriv", "--bounding-set", "-sys_chroot", "--inh-caps", "-all"], False),
    ],
    ids=["user namespace", "no chroot"],
)
def test_unpacking_with_fewer_rights(tmp_path, how, nested):
    (tmp_path / "low.tar").write_bytes(DATA)
    (tmp_path / "top.tar").write_bytes(TOP)
    subprocess.run([*how, sys.executable, "-c", PROGRAM, tmp_path], check=True, timeout=60)
    for name in ("low", "top"):
        found = read_inventory(tmp_path / f"{name}.inventory")
        assert not list(compare(tmp_path / name, found))
    low = read_tree(tmp_path / "low")
    assert (low[b"d/f"].mode, low[b"d"].mode, low[b"etc/inside"].content) == (0o4755, 0o700, b"y")
    assert (b"null" in low) is not nested
    st = os.lstat(tmp_path / "top/p")
    assert (stat.S_ISCHR(st.st_mode), st.st_rdev) == (True, 0)
    prefix = "user" if nested else "trusted"
    assert os.getxattr(tmp_path / "top/d", f"{prefix}.overlay.opaque") == b"y"


def test_the_processes_load_little(tmp_path):
    """The store, its database and its parsers stay out: every worker is a copy of the zygote."""
    program = """
import io, os, sys
from pathlib import Path
from proa.storage.layers import Unpacker
class Look(io.RawIOBase):
    def read(self, size=-1):
        maps = open(f"/proc/{unpacker._workers._process.pid}/maps").read()
        print(*sorted({line.split("/")[-1].split(".")[0] for line in maps.splitlines() if ".so" in line}))
        return b""
unpacker = Unpacker()
unpacker.unpack(Look(), "none", Path(sys.argv[1]))
"""
    out = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True, timeout=60
    )
    loaded = set(out.stdout.split())
    assert {"igzip_lib", "_hashlib"} <= loaded
    assert not loaded & {"_sqlite3", "libsqlite3", "_core", "_ssl", "libssl"}
