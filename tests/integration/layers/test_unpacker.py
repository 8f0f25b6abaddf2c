"""The unpack processes: results, errors, cancellation, deaths, and what they are confined to."""

import gzip
import hashlib
import io
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zstandard
from hostile_layers import cases
from layer_archives import archive, contents, directory, hard_link, member, pax, read_tree, symlink

from proa.errors import Cancelled, Corrupt, Exhausted, Invalid, ProaError, Unavailable
from proa.storage.layers import Budget, Unpacker

pytestmark = pytest.mark.root

DATA = archive(
    directory(b"./", mode=0o755),
    directory(b"etc", mode=0o755, uid=1, gid=2),
    member(b"etc/passwd", data=b"root" * 100_000, uid=3, gid=4, mode=0o6755),
    symlink(b"link", b"etc/passwd", uid=5),
    hard_link(b"hard", b"etc/passwd"),
    member(b"null", b"3", major=1, minor=3, mode=0o666, uid=6),
    member(b"disk", b"4", major=8, minor=0, mode=0o660, gid=7),
    pax([(b"SCHILY.xattr.security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))])
    + member(b"ping", data=b"x", mode=0o755, uid=8),
)
PACK = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


@pytest.fixture(scope="module")
def unpacker():
    with Unpacker() as made:
        yield made


@pytest.fixture
def target(tmp_path):
    (tmp_path / "layer").mkdir()
    return tmp_path / "layer"


def blob_fd(path, data):
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


class Slow(io.RawIOBase):
    """A blob that comes in two halves, the second when told."""

    def __init__(self, data, pause=lambda: None):
        self.parts = [data[: len(data) // 2], data[len(data) // 2 :]]
        self.pause = pause

    def read(self, size=-1):
        if len(self.parts) == 1:
            self.pause()
        return self.parts.pop(0) if self.parts else b""


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def wait_for(condition, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "auto"])
@pytest.mark.parametrize("by", ["fd", "stream"])
def test_a_layer_is_unpacked_whole(unpacker, target, tmp_path, compression, by):
    blob = PACK.get(compression, gzip.compress)(DATA)
    seen = []
    if by == "fd":
        fd = blob_fd(tmp_path / "blob", blob)
        result = unpacker.unpack(fd, compression, target, progress=seen.append)
        os.close(fd)
    else:
        result = unpacker.unpack(io.BytesIO(blob), compression, target, progress=seen.append)
        assert seen[-1] == len(blob)
    assert result.diff_id == "sha256:" + hashlib.sha256(DATA).hexdigest()
    assert (result.tar_bytes, result.entries, result.size_bytes, result.inodes) == (len(DATA), 8, 400_011, 6)
    st = os.lstat(target / "etc/passwd")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_size, st.st_nlink) == (0o6755, 3, 4, 400_000, 2)
    assert (os.lstat(target / "etc").st_uid, os.lstat(target / "link").st_uid) == (1, 5)
    null, disk = os.lstat(target / "null"), os.lstat(target / "disk")
    assert (null.st_rdev, null.st_uid, stat.S_IMODE(null.st_mode)) == (os.makedev(1, 3), 6, 0o666)
    assert (disk.st_rdev, disk.st_gid, stat.S_ISBLK(disk.st_mode)) == (os.makedev(8, 0), 7, True)
    assert len(os.getxattr(target / "ping", "security.capability")) == 20


def test_parents_are_seen_through_their_descriptors(unpacker, tmp_path):
    stack = []
    layers = [archive(directory(b"d", mode=0o700, uid=9), member(b"d/f", data=b"x"), member(b"g"))]
    layers += [archive(member(b"n%d" % n)) for n in range(2)]
    layers += [archive(member(b"d/.wh.f"), member(b".wh.g"), hard_link(b"h", b"n0"))]
    for number, data in enumerate(layers):
        path = tmp_path / str(number)
        path.mkdir()
        unpacker.unpack(io.BytesIO(data), "none", path, stack)
        stack.insert(0, path)
    top = stack[0]
    assert (os.stat(top / "d").st_uid, stat.S_IMODE(os.stat(top / "d").st_mode)) == (9, 0o700)
    assert os.lstat(top / "d/f").st_rdev == os.lstat(top / "g").st_rdev == 0
    assert os.stat(top / "h").st_ino == os.stat(top / "n0").st_ino


def test_more_parents_than_one_message_carries(unpacker, target, tmp_path):
    for n in range(300):
        (tmp_path / f"p{n}").mkdir()
    (tmp_path / "p299/f").write_text("x")
    parents = [tmp_path / f"p{n}" for n in range(300)]
    unpacker.unpack(io.BytesIO(archive(member(b".wh.f"))), "none", target, parents)
    assert stat.S_ISCHR(os.lstat(target / "f").st_mode)


@pytest.mark.parametrize("index", range(len(cases(b"/x"))), ids=[c.name for c in cases(b"/x")])
def test_hostile_layer_stays_inside(unpacker, tmp_path, index):
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_bytes(b"precious")
    case = cases(os.fsencode(canary))[index]
    before = (read_tree(canary), os.lstat(canary).st_mtime_ns)
    target = tmp_path / "layer"
    target.mkdir()
    if case.code is None:
        unpacker.unpack(io.BytesIO(case.data), "none", target)
        tree = contents(read_tree(target))
        assert all(tree.get(path) == content for path, content in (case.shows or {}).items())
    else:
        with pytest.raises(ProaError) as caught:
            unpacker.unpack(io.BytesIO(case.data), "none", target)
        assert caught.value.code == case.code
    assert (read_tree(canary), os.lstat(canary).st_mtime_ns) == before
    assert sorted(os.listdir(tmp_path)) == ["canary", "layer"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_damaged_blobs(unpacker, target, compression):
    blob = PACK[compression](DATA)
    for bad in (blob[:-3], blob + b"junk", blob[: len(blob) // 2], b"junk", b""):
        with pytest.raises(Corrupt):
            unpacker.unpack(io.BytesIO(bad), compression, target)


def test_a_bomb_is_stopped_and_takes_no_memory(tmp_path, target):
    bomb = gzip.compress(archive(member(b"zeros", data=bytes(1 << 20))) + bytes(200 << 20))
    with (
        Unpacker(budget=Budget(ratio=100, ratio_floor_bytes=8 << 20)) as unpacker,
        pytest.raises(Exhausted, match="100 times the compressed size"),
    ):
        unpacker.unpack(io.BytesIO(bomb), "gzip", target)


def test_a_refused_archive_ends_the_download(unpacker, target):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return b"x" * size

    with pytest.raises(Corrupt, match="checksum"):
        unpacker.unpack(Endless(), "none", target)


def test_an_error_of_the_stream_is_the_callers_own(unpacker, target):
    class OfflineError(Exception):
        pass

    def fail():
        raise OfflineError

    with pytest.raises(OfflineError):
        unpacker.unpack(Slow(DATA, fail), "none", target)


@pytest.mark.parametrize("by", ["fd", "stream"])
def test_cancelling_kills_the_worker(unpacker, target, by):
    event = threading.Event()
    threading.Timer(0.3, event.set).start()
    if by == "fd":
        source, feeder = os.pipe()  # never ends
    else:
        feeder, source = -1, open("/dev/zero", "rb", buffering=0)  # noqa: SIM115
    with pytest.raises(Cancelled):
        unpacker.unpack(source, "gzip" if by == "fd" else "none", target, cancelled=event)
    if by == "fd":
        os.close(source)
        os.close(feeder)
    else:
        source.close()
    assert children(unpacker._workers._process.pid) == []


def test_ten_layers_at_once(unpacker, tmp_path):
    results = {}

    def one(number):
        path = tmp_path / str(number)
        path.mkdir()
        results[number] = unpacker.unpack(io.BytesIO(PACK["gzip"](DATA)), "gzip", path)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert len(set(results.values())) == 1


def test_no_descriptor_or_process_is_left(unpacker, tmp_path):
    def unpack_some():
        for number in range(3):
            path = tmp_path / f"{time.monotonic_ns()}"
            path.mkdir()
            try:
                unpacker.unpack(io.BytesIO(DATA if number else b"junk"), "none", path)
            except Corrupt:
                pass

    unpack_some()
    before = os.listdir("/proc/self/fd")
    unpack_some()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert len(os.listdir(f"/proc/{unpacker._workers._process.pid}/fd")) <= 5
    wait_for(lambda: not children(unpacker._workers._process.pid))


def test_a_killed_worker_is_reported(unpacker, target):
    def kill():
        for pid in wait_for(lambda: children(unpacker._workers._process.pid)):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(Unavailable, match="was killed"):
        unpacker.unpack(Slow(DATA, kill), "none", target)


def test_a_killed_decoder_is_reported(unpacker, target):
    def kill():
        (worker,) = wait_for(lambda: children(unpacker._workers._process.pid))
        for pid in wait_for(lambda: children(worker)):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(Unavailable, match="decoder process was killed"):
        unpacker.unpack(Slow(DATA, kill), "none", target)


def test_a_killed_zygote_is_replaced(tmp_path):
    with Unpacker() as unpacker:
        for number in range(2):
            path = tmp_path / str(number)
            path.mkdir()
            unpacker.unpack(io.BytesIO(DATA), "none", path)
            process = unpacker._workers._process
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def test_a_killed_zygote_is_replaced_once_for_all_threads(tmp_path):
    with Unpacker() as unpacker:
        for round_ in range(3):
            errors = []

            def one(number, round_=round_, errors=errors):
                path = tmp_path / f"{round_}-{number}"
                path.mkdir()
                try:
                    unpacker.unpack(io.BytesIO(DATA), "none", path)
                except ProaError as error:
                    errors.append(error)

            threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            os.kill(unpacker._workers._process.pid, signal.SIGKILL)
            unpacker._workers._process.wait()


def test_after_close_nothing_runs_and_nothing_starts(target):
    unpacker = Unpacker()
    unpacker.unpack(io.BytesIO(DATA), "none", target)
    pid = unpacker._workers._process.pid
    unpacker.close()
    unpacker.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(Unavailable, match="closed"):
        unpacker.unpack(io.BytesIO(DATA), "none", target)


def test_nothing_outlives_the_engine(target):
    program = f"""
import io, os, sys, time
from pathlib import Path
from proa.storage.layers import Unpacker
class Slow(io.RawIOBase):
    def read(self, size=-1):
        if hasattr(self, "sent"):
            zygote = unpacker._workers._process.pid
            family = [zygote]
            while len(family) < 3:
                found = open(f"/proc/{{family[-1]}}/task/{{family[-1]}}/children").read().split()
                family += found[:1]
            print(*family, flush=True)
            time.sleep(60)
        self.sent = True
        return bytes(1 << 20)
unpacker = Unpacker()
unpacker.unpack(Slow(), "none", Path({str(target)!r}))
"""
    engine = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pids = [int(p) for p in engine.stdout.readline().split()]
    assert len(pids) == 3
    engine.kill()
    engine.wait()
    engine.stdout.close()
    wait_for(lambda: not any(Path(f"/proc/{p}").exists() for p in pids))


def test_the_processes_are_confined(unpacker, target):
    seen = {}

    def look():
        zygote = unpacker._workers._process.pid
        (worker,) = wait_for(lambda: children(zygote))
        (decoder,) = wait_for(lambda: children(worker))
        wait_for(lambda: status(decoder)["Seccomp"] == "2")
        for name, pid in (("zygote", zygote), ("worker", worker), ("decoder", decoder)):
            fds = {n: os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
            seen[name] = (status(pid), os.readlink(f"/proc/{pid}/root"), fds)
        seen["cmdline"] = Path(f"/proc/{zygote}/cmdline").read_bytes()

    unpacker.unpack(Slow(DATA, look), "none", target)
    assert b"proa unpack" in seen["cmdline"]
    assert all(s["Threads"] == "1" for s, _, _ in (seen["zygote"], seen["worker"], seen["decoder"]))
    worker, root, _ = seen["worker"]
    assert root == str(target)
    assert worker["NoNewPrivs"] == "1"
    assert int(worker["CapEff"], 16) == int(worker["CapPrm"], 16) == 0x8820001B
    decoder, root, fds = seen["decoder"]
    assert root == str(target)
    assert (decoder["NoNewPrivs"], int(decoder["CapEff"], 16), int(decoder["CapPrm"], 16)) == ("1", 0, 0)
    assert len(fds) == 3
    assert all(f.startswith("pipe:") for f in fds.values())


def test_nothing_of_python_is_opened_inside_the_layer(tmp_path, target):
    """No import, codec or source line is looked for once the image's files are the root (its files would run)."""
    trace = tmp_path / "trace"
    program = f"""
import io, sys
from pathlib import Path
from proa.storage.layers import Unpacker
good, bad = sys.argv[1:]
with Unpacker() as unpacker:
    unpacker.unpack(open(good, "rb"), "auto", Path({str(target)!r}))
    for kind in ("none", "gzip", "zstd", "auto"):
        try:
            unpacker.unpack(open(bad, "rb"), kind, Path({str(target)!r}))
        except Exception as error:
            assert type(error).__module__ == "proa.errors", error
        else:
            raise SystemExit("accepted")
"""
    (tmp_path / "good").write_bytes(gzip.compress(DATA))
    (tmp_path / "bad").write_bytes(archive(member(b"\xff\x1b/../../x")))
    command = [
        "/usr/bin/strace",
        "-f",
        "-qq",
        "-e",
        "trace=open,openat,stat,newfstatat,chroot,chdir,execve,readlink,clone,clone3,fork,vfork",
        "-o",
        trace,
    ]
    subprocess.run(
        [*command, sys.executable, "-c", program, tmp_path / "good", tmp_path / "bad"], check=True, timeout=60
    )
    inside, looked = set(), []
    for line in trace.read_text().splitlines():
        pid = line.split(None, 1)[0]
        if "chroot(" in line or (pid in inside and "chdir(" in line):
            inside.add(pid)
        elif pid in inside and (child := re.search(r"(?:clone|fork).*= (\d+)$", line)):
            inside.add(child[1])
        elif pid in inside and '"/' in line:
            looked.append(line)
    assert len(inside) == 10
    assert looked == []


def test_the_target_must_be_a_directory(unpacker, tmp_path):
    (tmp_path / "f").write_text("x")
    os.symlink(tmp_path, tmp_path / "l")
    for path in (tmp_path / "f", tmp_path / "l", tmp_path / "none"):
        with pytest.raises(OSError, match=str(path)):
            unpacker.unpack(io.BytesIO(DATA), "none", path)
    with pytest.raises(Invalid):
        unpacker.unpack(io.BytesIO(DATA), "rar", tmp_path)
