"""Contract suites and small real stand-ins for people who extend proa.

A suite is a class whose `test_…` methods say what every implementation of a seam must do. Subclass it in a test module,
define its `make_…` method, and let pytest run it:

    class TestMyStore(ContentStoreContract):
        def make_store(self, directory):
            return MyStore(directory)
"""

from proa.testing.content_store import ContentStoreContract
from proa.testing.expect import expect
from proa.testing.image_store import ImageStoreContract
from proa.testing.mounting import run_mounted
from proa.testing.snapshotter import SnapshotterContract

__all__ = ["ContentStoreContract", "ImageStoreContract", "SnapshotterContract", "expect", "run_mounted"]
