import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from storage_fakes import FileUnpacker

from proa.storage import Storage


@pytest.fixture
def storage(tmp_path):
    with Storage.open(tmp_path / "root") as storage:
        storage._unpacker = FileUnpacker()
        yield storage
        assert storage.trash.drain(30)
