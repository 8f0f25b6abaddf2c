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


@pytest.fixture(autouse=True)
def _no_spares(monkeypatch):
    """Directories made ahead come too late to be counted by a test."""
    monkeypatch.setattr("proa.storage.spares._PAUSE_S", 3600)
