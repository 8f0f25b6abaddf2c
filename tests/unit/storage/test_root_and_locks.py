import os
import subprocess
import sys
import threading

import pytest

from proa.errors import Conflict, Invalid
from proa.storage import KeyedLocks, Storage, lock_root, make_private


def test_every_directory_is_private(tmp_path):
    os.umask(0o022)
    root = tmp_path / "a" / "b" / "root"
    Storage.open(root).close()
    for directory, _, files in os.walk(tmp_path / "a"):
        assert os.stat(directory).st_mode & 0o777 == 0o700, directory
        for name in files:
            assert os.stat(os.path.join(directory, name)).st_mode & 0o077 == 0


def test_open_directory_is_closed_to_others(tmp_path):
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    make_private(root)
    assert root.stat().st_mode & 0o777 == 0o700


def test_file_is_no_root(tmp_path):
    (tmp_path / "root").write_text("")
    with pytest.raises(Invalid):
        make_private(tmp_path / "root")


@pytest.mark.parametrize("bad", ["a:b", "a,b", "a\\b", 'a"b'])
def test_unmountable_root_is_refused(tmp_path, bad):
    with pytest.raises(Invalid, match="overlay"):
        Storage.open(tmp_path / bad)


def test_second_engine_is_refused(tmp_path):
    with lock_root(tmp_path / "root"):
        with pytest.raises(Conflict, match=f"in use by another engine \\(pid {os.getpid()}\\)") as e:
            lock_root(tmp_path / "root")
        assert e.value.code == "root-locked"
        code = "import sys, pathlib; from proa.storage import lock_root; lock_root(pathlib.Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "root"], capture_output=True, text=True)
        assert done.returncode == 1
        assert "in use by another engine" in done.stderr
    lock_root(tmp_path / "root").close()


def test_keyed_locks_serialise_one_key_only():
    locks = KeyedLocks()
    inside = threading.Event()
    leave = threading.Event()

    def hold():
        with locks.hold("a"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with locks.hold("b"):
        pass
    entered = []
    waiter = threading.Thread(target=lambda: [entered.append(1) for _ in [locks.hold("a").__enter__()]])
    waiter.start()
    assert not entered
    leave.set()
    thread.join()
    waiter.join()
    assert entered


def test_keyed_locks_leave_nothing_behind():
    locks = KeyedLocks()
    count = 0

    def work():
        nonlocal count
        for _ in range(200):
            with locks.hold("k"):
                n = count
                count = n + 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert count == 1200
    assert locks._locks == {}
