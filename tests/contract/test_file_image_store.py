from pathlib import Path

import pytest

from proa.storage import FileImageStore, Index, Leases
from proa.storage.paths import Paths
from proa.testing import ImageStoreContract


class TestFileImageStore(ImageStoreContract):
    @pytest.fixture(autouse=True)
    def _indexes(self):
        self.open: list[Index] = []
        yield
        for index in self.open:
            index.close()

    def make_store(self, directory: Path) -> FileImageStore:
        for index in self.open:
            index.close()
        paths = Paths(directory)
        paths.create()
        self.open = [Index(paths.index)]
        return FileImageStore(paths.images, self.open[0], Leases(paths.leases))


class TestWithoutItsIndex(TestFileImageStore):
    """The same, with the index lost at every restart: the records alone must do."""

    def make_store(self, directory: Path) -> FileImageStore:
        for index in self.open:
            index.close()
        self.open = []
        for path in directory.glob("index.*"):
            path.unlink()
        return super().make_store(directory)
