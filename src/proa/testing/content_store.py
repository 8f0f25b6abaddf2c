"""What every ContentStore must do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from proa.errors import Cancelled, Corrupt, Invalid, NotFound, ProaError, Unavailable
from proa.oci import Descriptor, Digest, digest_of
from proa.storage.content import ContentStore, read_blob, write_blob
from proa.testing.expect import expect

_MEDIA_TYPE = "application/octet-stream"


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor(media_type=_MEDIA_TYPE, digest=digest_of(data), size=len(data))


class ContentStoreContract:
    """Subclass and define make_store. `make_store(directory)` called twice opens the same store as after a restart."""

    def make_store(self, directory: Path) -> ContentStore:
        """A store that keeps its blobs below `directory`."""
        raise NotImplementedError

    def test_committed_blob_is_read_back(self, tmp_path: Path) -> None:
        """Also the empty one, and after a restart."""
        store = self.make_store(tmp_path)
        for data in (b"", b"x", os.urandom(3 << 20)):
            d = write_blob(store, data, _MEDIA_TYPE)
            assert d == _descriptor(data)
            assert store.info(d.digest).size == len(data)
            assert read_blob(store, d, 4 << 20) == data
            assert read_blob(self.make_store(tmp_path), d, 4 << 20) == data

    def test_nothing_is_visible_before_commit(self, tmp_path: Path) -> None:
        """Not to info, open or walk; `ingests` shows it."""
        store = self.make_store(tmp_path)
        d = _descriptor(b"hello")
        with store.ingest("a", d) as ingest:
            ingest.write(b"hello")
            with expect(NotFound):
                store.info(d.digest)
            with expect(NotFound):
                store.open(d)
            assert list(store.walk()) == []
            (status,) = store.ingests()
            assert (status.ref, status.offset, status.expected) == ("a", 5, d)
            assert ingest.commit() == d.digest
        assert [b.digest for b in store.walk()] == [d.digest]
        assert store.ingests() == []

    def test_stopped_ingest_resumes_after_a_restart(self, tmp_path: Path) -> None:
        """The digest covers the bytes of both writers."""
        data = os.urandom(100_000)
        with self.make_store(tmp_path).ingest("layer", _descriptor(data)) as ingest:
            ingest.write(data[:60_000])
        store = self.make_store(tmp_path)
        with store.ingest("layer", _descriptor(data)) as ingest:
            assert ingest.offset == 60_000
            ingest.write(memoryview(data)[60_000:])
            ingest.commit()
        assert read_blob(store, _descriptor(data), 1 << 20) == data

    def test_partial_of_another_digest_is_not_resumed(self, tmp_path: Path) -> None:
        """A ref that is used for other content begins again."""
        store = self.make_store(tmp_path)
        with store.ingest("r", _descriptor(b"first")) as ingest:
            ingest.write(b"fir")
        with store.ingest("r", _descriptor(b"second")) as ingest:
            assert ingest.offset == 0
            ingest.write(b"second")
            ingest.commit()

    def test_wrong_digest_is_refused_and_dropped(self, tmp_path: Path) -> None:
        """So that the next attempt does not resume bad bytes."""
        store = self.make_store(tmp_path)
        d = _descriptor(b"good")
        with store.ingest("r", d) as ingest:
            ingest.write(b"evil")
            with expect(Corrupt):
                ingest.commit()
        with expect(NotFound):
            store.info(d.digest)
        assert list(store.walk()) == []
        with store.ingest("r", d) as ingest:
            assert ingest.offset == 0

    def test_too_few_bytes_are_refused_and_kept(self, tmp_path: Path) -> None:
        """A cut connection loses nothing."""
        store = self.make_store(tmp_path)
        d = _descriptor(b"hello world")
        with store.ingest("r", d) as ingest:
            ingest.write(b"hello")
            with expect(Corrupt):
                ingest.commit()
        with store.ingest("r", d) as ingest:
            assert ingest.offset == 5

    def test_too_many_bytes_are_refused_at_once(self, tmp_path: Path) -> None:
        """A server cannot fill the disk."""
        store = self.make_store(tmp_path)
        with store.ingest("r", _descriptor(b"abc")) as ingest, expect(Corrupt):
            ingest.write(b"abcd")

    def test_commit_checks_late_promises(self, tmp_path: Path) -> None:
        """An upload learns its digest at the end."""
        store = self.make_store(tmp_path)
        with store.ingest("upload") as ingest:
            ingest.write(b"abc")
            with expect(Corrupt):
                ingest.commit(digest=digest_of(b"abd"))
        with store.ingest("upload") as ingest:
            ingest.write(b"abc")
            with expect(Corrupt):
                ingest.commit(size=4)
        with store.ingest("upload") as ingest:
            assert ingest.offset == 3
            assert ingest.commit(size=3, digest=digest_of(b"abc")) == digest_of(b"abc")

    def test_commit_of_what_exists_succeeds(self, tmp_path: Path) -> None:
        """Two downloads of one blob both succeed."""
        store = self.make_store(tmp_path)
        d = write_blob(store, b"same", _MEDIA_TYPE)
        with store.ingest("again", d) as ingest:
            ingest.write(b"same")
            assert ingest.commit() == d.digest
        assert len(list(store.walk())) == 1
        assert store.ingests() == []

    def test_one_writer_per_ref(self, tmp_path: Path) -> None:
        """The second is told to try later, and may after the first closed."""
        store = self.make_store(tmp_path)
        with store.ingest("r"):
            with expect(Unavailable):
                store.ingest("r")
            with expect(Unavailable):
                store.abort("r")
        store.ingest("r").close()
        store.abort("r")
        with expect(NotFound):
            store.abort("r")

    def test_follower_reads_while_it_grows(self, tmp_path: Path) -> None:
        """From the first byte, including those of an earlier writer, to the verified end."""
        store = self.make_store(tmp_path)
        data = os.urandom(700_000)
        d = _descriptor(data)
        with store.ingest("r", d) as ingest:
            ingest.write(data[:100_000])
        with store.ingest("r", d) as ingest:
            reader = ingest.follow()
            got = bytearray()

            def follow() -> None:
                while part := reader.read(65536):
                    got.extend(part)

            thread = threading.Thread(target=follow)
            thread.start()
            for i in range(100_000, len(data), 50_000):
                ingest.write(data[i : i + 50_000])
            ingest.commit()
            thread.join(10)
            reader.close()
        assert bytes(got) == data

    def test_follower_learns_of_failure(self, tmp_path: Path) -> None:
        """It never takes a stopped or wrong blob for a finished one."""
        store = self.make_store(tmp_path)
        for wrong, kind in ((b"evil", Corrupt), (b"go", Cancelled)):
            with store.ingest("r", _descriptor(b"good")) as ingest:
                reader = ingest.follow()
                ingest.write(wrong)
                if kind is Corrupt:
                    with expect(Corrupt):
                        ingest.commit()
            errors: list[ProaError] = []
            try:
                while reader.read(100):
                    pass
            except ProaError as e:
                errors.append(e)
            assert [type(e) for e in errors] == [kind]
            reader.close()

    def test_closed_follower_stops_waiting(self, tmp_path: Path) -> None:
        """Who gives up a download can stop its unpacker."""
        store = self.make_store(tmp_path)
        with store.ingest("r") as ingest:
            reader = ingest.follow()
            stopped = threading.Event()

            def follow() -> None:
                try:
                    reader.read(10)
                except (Cancelled, ValueError):
                    stopped.set()

            thread = threading.Thread(target=follow)
            thread.start()
            reader.close()
            assert stopped.wait(10)
            thread.join(10)

    def test_reader_of_another_size_is_refused(self, tmp_path: Path) -> None:
        """A manifest that lies about a size is found before the bytes are used."""
        store = self.make_store(tmp_path)
        d = write_blob(store, b"abc", _MEDIA_TYPE)
        with expect(Corrupt):
            store.open(Descriptor(media_type=_MEDIA_TYPE, digest=d.digest, size=2))

    def test_read_blob_has_a_limit(self, tmp_path: Path) -> None:
        """Documents have byte budgets."""
        store = self.make_store(tmp_path)
        d = write_blob(store, b"abc", _MEDIA_TYPE)
        with expect(Invalid):
            read_blob(store, d, 2)

    def test_deleted_blob_is_gone(self, tmp_path: Path) -> None:
        """But not for a reader that has it open."""
        store = self.make_store(tmp_path)
        d = write_blob(store, b"abc", _MEDIA_TYPE)
        with store.open(d) as reader:
            store.delete(d.digest)
            assert reader.read(10) == b"abc"
        with expect(NotFound):
            store.info(d.digest)
        with expect(NotFound):
            store.delete(d.digest)

    def test_digest_cannot_name_a_path(self, tmp_path: Path) -> None:
        """CVE-2014-9358: identifiers are checked before they touch the disk."""
        store = self.make_store(tmp_path)
        for text in (
            "../../../etc/passwd",
            "sha256:../../x",
            "sha256:" + "A" * 64,
            "sha256:" + "0" * 64 + "\n",
            "md5:" + "0" * 32,
            "",
        ):
            with expect(Invalid):
                store.info(Digest(text))
            with expect(Invalid):
                store.delete(Digest(text))

    def test_refs_are_any_text(self, tmp_path: Path) -> None:
        """A ref is a name, not a path."""
        store = self.make_store(tmp_path)
        refs = {"../../x", "/etc/passwd", "a/b", "", "x" * 5000, "ü\n"}
        for ref in refs:
            store.ingest(ref).close()
        assert {s.ref for s in store.ingests()} == refs
        assert not (tmp_path.parent / "x").exists()
        for ref in refs:
            store.abort(ref)
        assert store.ingests() == []

    def test_many_writers_at_once(self, tmp_path: Path) -> None:
        """Different refs do not disturb each other, equal content is stored once."""
        store = self.make_store(tmp_path)
        errors: list[ProaError] = []

        def write(n: int) -> None:
            try:
                write_blob(store, b"blob %d" % (n % 5), _MEDIA_TYPE)
            except ProaError as e:
                errors.append(e)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(20)
        assert not errors
        assert len(list(store.walk())) == 5
