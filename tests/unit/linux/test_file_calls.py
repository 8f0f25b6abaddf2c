"""File calls against a temporary directory; no privileges needed."""

import errno
import os
from pathlib import Path

import pytest

from proa.linux import files, inotify, memory_files, mount


def test_openat2_clamps_absolute_links_to_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("inside")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("../../../etc/passwd")
    root = os.open(tmp_path, os.O_PATH)
    for name in ("link", "up"):
        fd = files.openat2(root, name, os.O_RDONLY, resolve=files.RESOLVE_IN_ROOT)
        assert os.read(fd, 100) == b"inside"
        assert not os.get_inheritable(fd)
        os.close(fd)
    os.close(root)


def test_failure_names_call_and_path(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises(FileNotFoundError) as caught:
        files.openat2(root, "absent", os.O_RDONLY)
    os.close(root)
    assert caught.value.strerror == "openat2: No such file or directory"
    assert caught.value.filename == "absent"
    with pytest.raises(ValueError, match="NUL"):
        files.openat2(-1, "a\0b", os.O_RDONLY)


def test_renameat2_exchange_and_noreplace(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    files.renameat2(mount.AT_FDCWD, tmp_path / "a", mount.AT_FDCWD, tmp_path / "b", files.RENAME_EXCHANGE)
    assert (tmp_path / "a").read_text() == "b"
    with pytest.raises(FileExistsError):
        files.renameat2(mount.AT_FDCWD, tmp_path / "a", mount.AT_FDCWD, tmp_path / "b", files.RENAME_NOREPLACE)


def test_sealed_memory_file_refuses_writing() -> None:
    fd = memory_files.memfd_executable("sealed")
    os.write(fd, b"x")
    memory_files.seal(fd)
    with pytest.raises(PermissionError):
        os.write(fd, b"y")
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_mount_roots_are_told(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_PATH)
    proc = os.open("/proc", os.O_PATH)
    assert files.is_mount_root(proc)
    assert not files.is_mount_root(here)
    assert mount.fstatfs_magic(proc) == mount.statfs_magic("/proc") == mount.PROC_SUPER_MAGIC
    os.close(here)
    os.close(proc)


def test_close_range_closes_only_the_range() -> None:
    low = os.open("/", os.O_PATH)
    high = os.dup2(low, 900)
    files.close_range(900, 901)
    with pytest.raises(OSError) as caught:
        os.fstat(high)
    assert caught.value.errno == errno.EBADF
    os.close(low)


def test_inotify_tells_names(tmp_path: Path) -> None:
    fd = inotify.inotify_init()
    watch = inotify.inotify_add_watch(fd, tmp_path, inotify.IN_CREATE)
    assert inotify.read_events(fd) == []
    (tmp_path / "new").touch()
    assert inotify.read_events(fd) == [inotify.Event(watch, inotify.IN_CREATE, b"new")]
    os.close(fd)


def test_writeback_and_syncfs(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w") as file:
        file.write("x")
        file.flush()
        files.start_writeback(file.fileno())
        files.syncfs(file.fileno())
