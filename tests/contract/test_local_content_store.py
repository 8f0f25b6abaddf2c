from pathlib import Path

from proa.storage import LocalContentStore
from proa.storage.paths import Paths
from proa.testing import ContentStoreContract


class TestLocalContentStore(ContentStoreContract):
    def make_store(self, directory: Path) -> LocalContentStore:
        paths = Paths(directory)
        paths.create()
        return LocalContentStore(paths.blobs, paths.ingests)
