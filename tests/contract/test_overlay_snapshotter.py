from pathlib import Path

import pytest

from proa.storage import OverlaySnapshotter
from proa.storage.paths import Paths
from proa.storage.trash import Trash
from proa.testing import SnapshotterContract


@pytest.mark.root
class TestOverlaySnapshotter(SnapshotterContract):
    @pytest.fixture(autouse=True)
    def _trashes(self):
        self.trashes: list[Trash] = []
        self.snapshotters: list[OverlaySnapshotter] = []
        yield
        for snapshotter in self.snapshotters:
            snapshotter.close()
        for trash in self.trashes:
            assert trash.drain(30)
            trash.close()
            assert not trash.blocked

    def make_snapshotter(self, directory: Path) -> OverlaySnapshotter:
        paths = Paths(directory)
        paths.create()
        self.trashes.append(Trash(paths.trash))
        for snapshotter in self.snapshotters:
            snapshotter.close()
        self.snapshotters = [OverlaySnapshotter(paths.snapshots, self.trashes[-1])]
        return self.snapshotters[-1]


@pytest.mark.root
class TestUnderALongPath(TestOverlaySnapshotter):
    """Where the lower directories do not fit the options page."""

    def make_snapshotter(self, directory: Path) -> OverlaySnapshotter:
        return super().make_snapshotter(directory / ("x" * 100))
