import sqlite3

import pytest

from proa.errors import Corrupt
from proa.storage import Index
from proa.storage.index import SCHEMA


@pytest.fixture
def index(tmp_path):
    index = Index(tmp_path / "index.sqlite")
    yield index
    index.close()


def test_clean_end_keeps_the_tables(tmp_path):
    path = tmp_path / "index.sqlite"
    index = Index(path)
    assert index.rebuilt
    assert index.define("t", "a TEXT")
    with index.write(durable=True) as write:
        write.execute("INSERT INTO t VALUES ('x')")
    index.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.sqlite"]
    again = Index(path)
    assert not again.rebuilt
    assert not again.define("t", "a TEXT")
    assert again.read("SELECT a FROM t") == [("x",)]
    again.close()


def test_unclean_end_starts_empty(tmp_path):
    path = tmp_path / "index.sqlite"
    index = Index(path)
    index.define("t", "a TEXT")
    index._reader.close()
    index._writer.close()
    again = Index(path)
    assert again.rebuilt
    assert again.define("t", "a TEXT")
    again.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "zeroed", "schema"])
def test_damaged_file_is_replaced(tmp_path, damage):
    path = tmp_path / "index.sqlite"
    index = Index(path)
    index.define("t", "a TEXT")
    with index.write() as write:
        write.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
    index.close()
    raw = bytearray(path.read_bytes())
    if damage == "garbage":
        raw[:100] = b"not a database" * 7 + b"xx"
    elif damage == "truncated":
        raw = raw[: len(raw) // 2]
    elif damage == "zeroed":
        raw[4096 : 4096 * 4] = bytes(4096 * 3)
    else:
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
        db.close()
        raw = bytearray(path.read_bytes())
    path.write_bytes(raw)
    again = Index(path)
    assert again.rebuilt
    assert again.define("t", "a TEXT")
    again.close()


def test_failed_transaction_changes_nothing(index):
    index.define("t", "a TEXT UNIQUE")
    with pytest.raises(sqlite3.IntegrityError), index.write() as write:
        write.executemany("INSERT INTO t VALUES (?)", [("x",), ("x",)])
    assert index.read("SELECT * FROM t") == []
    with pytest.raises(Corrupt):
        index.read("SELECT * FROM nothing")
