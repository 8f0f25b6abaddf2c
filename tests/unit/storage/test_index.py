import sqlite3
import threading

import pytest

from proa.errors import Conflict, Corrupt, Invalid, NotFound
from proa.storage import Entry, Index, NameIndex
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


def test_reserve_and_resolve(index):
    names = NameIndex(index, "containers", ("image", "state"))
    assert names.fresh
    names.reserve("web", "ab" * 32, image="alpine", state="created")
    names.reserve("", "ac" * 32)
    names.reserve("abab", "f0" * 32)
    assert names.resolve("web").columns == {"image": "alpine", "state": "created"}
    assert names.resolve("ab" * 32).name == "web"
    assert names.resolve("ac").id == "ac" * 32
    assert names.resolve("abab").id == "f0" * 32, "a name goes before a prefix"
    assert names.get("ac" * 32).name == ""
    with pytest.raises(Invalid, match="multiple IDs"):
        names.resolve("a")
    for text in ("nothing", "", "ab' OR '1'='1"):
        with pytest.raises(NotFound):
            names.resolve(text)


def test_name_is_unique_and_conflict_names_the_holder(index):
    names = NameIndex(index, "containers")
    names.reserve("web", "1")
    with pytest.raises(Conflict) as e:
        names.reserve("web", "2")
    assert e.value.fields["holder"] == "1"
    with pytest.raises(Conflict):
        names.reserve("other", "1")
    names.reserve("db", "2")
    with pytest.raises(Conflict):
        names.rename("2", "web")
    names.release("1")
    names.release("1")
    names.rename("2", "web")
    assert names.resolve("web").id == "2"
    with pytest.raises(NotFound):
        names.rename("1", "x")


def test_columns_are_listed_by(index):
    names = NameIndex(index, "containers", ("state",))
    for n in range(4):
        names.reserve(f"n{n}", str(n), created=10.0 - n, state="running" if n % 2 else "created")
    assert [e.id for e in names.list()] == ["3", "2", "1", "0"]
    names.update("1", state="exited")
    assert [e.id for e in names.list(state="exited")] == ["1"]
    with pytest.raises(ValueError, match="no column"):
        names.list(**{"state=1 OR 1": "x"})
    with pytest.raises(ValueError, match="column name"):
        NameIndex(index, "x", ("a; DROP TABLE",))


def test_replace_rebuilds(index):
    names = NameIndex(index, "volumes")
    names.reserve("old", "0")
    names.replace([Entry("2", "web", 2.0), Entry("1", "web", 1.0), Entry("3", "", 3.0)])
    assert [(e.id, e.name) for e in names.list()] == [("1", "web"), ("2", ""), ("3", "")]
    assert not names.fresh


def test_one_of_many_reservers_wins(index):
    names = NameIndex(index, "containers")
    won = []

    def reserve(n):
        try:
            names.reserve("web", str(n))
            won.append(n)
        except Conflict:
            pass

    threads = [threading.Thread(target=reserve, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1
    assert names.resolve("web").id == str(won[0])
