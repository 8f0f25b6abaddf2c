"""What every Snapshotter must do."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from proa.errors import Conflict, NotFound
from proa.storage.snapshots import Mount, Snapshotter, Usage, upper_dir
from proa.testing.expect import expect
from proa.testing.mounting import run_mounted


def _write(mounts: Sequence[Mount], name: str, text: str) -> None:
    (Path(upper_dir(mounts)) / name).write_text(text)


class SnapshotterContract:
    """Subclass and define make_snapshotter; needs root, because the mounts are made and looked at.

    `make_snapshotter(directory)` called twice opens the same one as after a restart.
    """

    def make_snapshotter(self, directory: Path) -> Snapshotter:
        """A snapshotter that keeps its files below `directory`."""
        raise NotImplementedError

    def layers(self, snapshotter: Snapshotter, count: int) -> str:
        """Commit `count` layers, each with a file of its own and one all of them write; the name of the uppermost."""
        parent = ""
        for n in range(count):
            mounts = snapshotter.prepare(f"unpack:{n}", parent)
            _write(mounts, f"file{n}", f"{n}\n")
            _write(mounts, "top", f"{n}\n")
            snapshotter.commit(f"layer{n}", f"unpack:{n}")
            parent = f"layer{n}"
        return parent

    def test_layers_show_through(self, tmp_path: Path) -> None:
        """The uppermost wins, all others are visible, for one layer and for several."""
        s = self.make_snapshotter(tmp_path)
        self.layers(s, 3)
        for top in range(3):
            mounts = s.prepare(f"container:{top}", f"layer{top}")
            assert run_mounted(mounts, "cat top; cat file*").split() == [
                str(top),
                *(str(n) for n in range(top + 1)),
            ]

    def test_containers_do_not_see_each_other(self, tmp_path: Path) -> None:
        """Nor does a layer change."""
        s = self.make_snapshotter(tmp_path)
        parent = self.layers(s, 2)
        one, two = s.prepare("container:1", parent), s.prepare("container:2", parent)
        assert run_mounted(one, "echo mine >top; rm file0; mkdir new; cat top") == "mine\n"
        assert run_mounted(two, "cat top file0; ls").split() == ["1", "0", "file0", "file1", "top"]
        assert run_mounted(one, "ls; cat top").split() == ["file1", "new", "top", "mine"]
        s.remove("container:1")
        assert run_mounted(s.view("view", parent), "cat top file0").split() == ["1", "0"]

    def test_scratch_is_writable_and_empty(self, tmp_path: Path) -> None:
        """A snapshot without parent."""
        s = self.make_snapshotter(tmp_path)
        mounts = s.prepare("container:1")
        assert run_mounted(mounts, "ls -A; echo a >b; cat b; stat -c %a .") == "a\n755\n"

    def test_view_is_readonly(self, tmp_path: Path) -> None:
        """Of one layer and of several."""
        s = self.make_snapshotter(tmp_path)
        self.layers(s, 2)
        for name in ("layer0", "layer1"):
            mounts = s.view(f"view:{name}", name)
            assert run_mounted(mounts, "cat file0; touch x 2>/dev/null || echo readonly").split() == ["0", "readonly"]
            assert s.stat(f"view:{name}").kind == "view"
            with expect(Conflict):
                s.commit("x", f"view:{name}")

    def test_many_layers_mount(self, tmp_path: Path) -> None:
        """Docker's limit is 127; a long data root must not lower it."""
        s = self.make_snapshotter(tmp_path)
        parent = self.layers(s, 127)
        mounts = s.prepare("container:1", parent)
        assert run_mounted(mounts, "cat top file0 file126; echo new >top; cat top").split() == [
            "126",
            "0",
            "126",
            "new",
        ]
        assert run_mounted(s.view("view", parent), "ls | wc -l").strip() == "128"

    def test_root_attributes_are_inherited(self, tmp_path: Path) -> None:
        """Mode and owner of `/` are those of the uppermost layer that set them."""
        s = self.make_snapshotter(tmp_path)
        mounts = s.prepare("unpack")
        os.chmod(upper_dir(mounts), 0o1751)  # noqa: S103
        os.chown(upper_dir(mounts), 12, 34)
        s.commit("layer", "unpack")
        assert run_mounted(s.prepare("container:1", "layer"), "stat -c '%a %u %g' .") == "1751 12 34\n"

    def test_mounts_can_be_asked_again(self, tmp_path: Path) -> None:
        """Also after a restart, with what was written."""
        s = self.make_snapshotter(tmp_path)
        mounts = s.prepare("container:1", self.layers(s, 2))
        run_mounted(mounts, "echo kept >file")
        assert s.mounts("container:1") == mounts
        again = self.make_snapshotter(tmp_path)
        assert again.mounts("container:1") == mounts
        assert run_mounted(again.mounts("container:1"), "cat file top").split() == ["kept", "1"]
        assert again.stat("container:1").parent == "layer1"

    def test_volatile_can_be_used_again(self, tmp_path: Path) -> None:
        """A container that is removed after its end may still be restarted before it."""
        s = self.make_snapshotter(tmp_path)
        s.prepare("container:1", self.layers(s, 1), volatile=True)
        run_mounted(s.mounts("container:1"), "echo once >file")
        assert run_mounted(s.mounts("container:1"), "cat file") == "once\n"
        assert run_mounted(self.make_snapshotter(tmp_path).mounts("container:1"), "cat file") == "once\n"

    def test_keys_and_names_are_unique(self, tmp_path: Path) -> None:
        """And a commit that finds its name taken leaves the key."""
        s = self.make_snapshotter(tmp_path)
        self.layers(s, 1)
        s.prepare("a")
        with expect(Conflict):
            s.prepare("a")
        with expect(Conflict):
            s.commit("layer0", "a")
        assert s.stat("a").kind == "active"
        s.remove("a")
        s.prepare("a")

    def test_missing_ones_are_not_found(self, tmp_path: Path) -> None:
        """By every method."""
        s = self.make_snapshotter(tmp_path)
        for call in (s.mounts, s.remove, s.stat, s.usage):
            with expect(NotFound):
                call("nothing")
        with expect(NotFound):
            s.prepare("a", "nothing")
        with expect(NotFound):
            s.commit("name", "nothing")
        assert list(s.walk()) == []

    def test_parent_cannot_be_removed(self, tmp_path: Path) -> None:
        """Neither under a layer nor under a container; afterwards it can."""
        s = self.make_snapshotter(tmp_path)
        self.layers(s, 2)
        s.prepare("container:1", "layer1")
        for name in ("layer0", "layer1"):
            with expect(Conflict):
                s.remove(name)
        s.remove("container:1")
        s.remove("layer1")
        s.remove("layer0")
        assert list(s.walk()) == []
        assert list(self.make_snapshotter(tmp_path).walk()) == []

    def test_walk_tells_kinds_and_parents(self, tmp_path: Path) -> None:
        """The same after a restart."""
        s = self.make_snapshotter(tmp_path)
        s.prepare("container:1", self.layers(s, 2))
        s.view("v", "layer0")
        expected = {
            ("layer0", "", "committed"),
            ("layer1", "layer0", "committed"),
            ("container:1", "layer1", "active"),
            ("v", "layer0", "view"),
        }
        for each in (s, self.make_snapshotter(tmp_path)):
            assert {(i.key, i.parent, i.kind) for i in each.walk()} == expected

    def test_usage_counts_hard_links_once(self, tmp_path: Path) -> None:
        """Allocated bytes; the same before and after commit."""
        s = self.make_snapshotter(tmp_path)
        mounts = s.prepare("a")
        empty = s.usage("a")
        (Path(upper_dir(mounts)) / "big").write_bytes(os.urandom(1 << 20))
        os.link(Path(upper_dir(mounts)) / "big", Path(upper_dir(mounts)) / "link")
        used = s.usage("a")
        assert 1 << 20 <= used.size_bytes - empty.size_bytes < 1.1 * (1 << 20)
        assert used.inodes - empty.inodes == 1
        s.commit("layer", "a")
        assert s.usage("layer") == used
        assert self.make_snapshotter(tmp_path).usage("layer") == used

    def test_commit_takes_a_usage(self, tmp_path: Path) -> None:
        """A caller that counted saves the walk."""
        s = self.make_snapshotter(tmp_path)
        s.prepare("a")
        s.commit("layer", "a", Usage(12, 3))
        assert s.usage("layer") == Usage(12, 3)

    def test_one_of_many_preparers_wins(self, tmp_path: Path) -> None:
        """Same key from many threads: one snapshot. Different keys: all."""
        s = self.make_snapshotter(tmp_path)
        parent = self.layers(s, 1)
        won: list[str] = []

        def prepare(n: int) -> None:
            try:
                s.prepare("same", parent)
                won.append("same")
            except Conflict:
                pass
            s.prepare(f"container:{n}", parent)

        threads = [threading.Thread(target=prepare, args=(n,)) for n in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(20)
        assert won == ["same"]
        assert sum(1 for i in s.walk() if i.kind == "active") == 13
