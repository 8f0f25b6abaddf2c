"""What every ImageStore must do."""

from __future__ import annotations

import threading
from pathlib import Path

from proa.errors import Invalid, NotFound
from proa.oci import Descriptor, Digest, digest_of, media_types
from proa.storage.images import ImageStore
from proa.testing.expect import expect


def _descriptor(text: str) -> Descriptor:
    return Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest_of(text.encode()), size=len(text))


class ImageStoreContract:
    """Define make_store; called twice it opens the same store as after a restart, the first is no longer used."""

    def make_store(self, directory: Path) -> ImageStore:
        """A store that keeps its names below `directory`."""
        raise NotImplementedError

    def test_put_get_delete(self, tmp_path: Path) -> None:
        """A name points to one descriptor until it is deleted."""
        store = self.make_store(tmp_path)
        name = "registry.example:5000/team/app:v1"
        with expect(NotFound):
            store.get(name)
        put = store.put(name, _descriptor("a"))
        assert store.get(name) == put
        assert (put.name, put.descriptor) == (name, _descriptor("a"))
        store.delete(name)
        with expect(NotFound):
            store.get(name)
        with expect(NotFound):
            store.delete(name)

    def test_put_again_moves_the_name(self, tmp_path: Path) -> None:
        """`created` stays, `updated` moves on."""
        store = self.make_store(tmp_path)
        first = store.put("docker.io/library/x:latest", _descriptor("a"))
        second = store.put("docker.io/library/x:latest", _descriptor("b"))
        assert second.created == first.created
        assert second.updated >= first.updated
        assert [i.descriptor for i in store.walk()] == [_descriptor("b")]

    def test_names_survive_a_restart(self, tmp_path: Path) -> None:
        """All of the descriptor does."""
        store = self.make_store(tmp_path)
        full = Descriptor(
            media_type=media_types.OCI_INDEX, digest=digest_of(b"i"), size=7, annotations={"a": "b"}, artifact_type="t"
        )
        store.put("docker.io/library/x:latest", full)
        store.put(_descriptor("u").digest, _descriptor("u"))
        again = self.make_store(tmp_path)
        assert again.get("docker.io/library/x:latest").descriptor == full
        assert [i.name for i in again.walk()] == sorted(["docker.io/library/x:latest", _descriptor("u").digest])

    def test_names_are_any_text(self, tmp_path: Path) -> None:
        """A name cannot become a path, and different names never meet."""
        store = self.make_store(tmp_path)
        names = ["../../x", "/etc/passwd", "a/b", "a%2Fb", "A/b", "~x", ".hidden", "n" * 4000, "n" * 4001]
        for name in names:
            store.put(name, _descriptor(name))
        store = self.make_store(tmp_path)
        assert {i.name for i in store.walk()} == set(names)
        for name in names:
            assert store.get(name).descriptor == _descriptor(name)

    def test_bad_digest_is_refused(self, tmp_path: Path) -> None:
        """What is stored can be used as a path later."""
        store = self.make_store(tmp_path)
        with expect(Invalid):
            store.put("x", Descriptor(media_type=media_types.OCI_MANIFEST, digest=Digest("sha256:../x"), size=1))
        assert list(store.walk()) == []

    def test_many_writers_at_once(self, tmp_path: Path) -> None:
        """The last one wins, none is lost."""
        store = self.make_store(tmp_path)
        threads = [
            threading.Thread(target=store.put, args=(f"docker.io/library/x:{n % 8}", _descriptor(str(n))))
            for n in range(32)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join(20)
        assert len(list(store.walk())) == 8
        assert list(store.walk()) == list(self.make_store(tmp_path).walk())
