"""An engine service of its own, driven by the real clients."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import leaks
import pytest
from engines import free_port


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("proa", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """One `python -I -m proa.api` with its own directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root, self.run = directory / "root", directory / "run"
        self.socket = self.run / "engine.sock"
        self.log = directory / "engine.log"
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PROA_", "DOCKER_"))}
        self.env |= {"HOME": str(directory), "DOCKER_HOST": f"unix://{self.socket}"}

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-I", "-m", "proa.api", "--root", str(self.root), "--run", str(self.run), *args]

    def start(self, *args: str, **options: Any) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(*args), stderr=log, env=self.env, **options)
        self.wait_for_socket()

    def tls_options(self, pairs: Path) -> list[str]:
        """Options to listen with mutual TLS at `address`, too."""
        self.address = f"127.0.0.1:{free_port()}"
        files = {"ca": "ca", "cert": "servercert", "key": "serverkey"}
        options = [word for option, file in files.items() for word in (f"--tls-{option}", f"{pairs}/{file}.pem")]
        return ["--tcp", self.address, *options]

    def wait_for_socket(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket))
                return
            except OSError:
                assert self.process is None or self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.01)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """One request; the status, and the body decoded if it is JSON."""
        connection = _UnixConnection(str(self.socket))
        try:
            connection.request(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(data) if kind == "application/json" and data.count(b"\n") == 1 else data

    def docker(
        self,
        *args: str,
        check: bool = True,
        input: bytes | None = None,  # noqa: A002 named as in subprocess
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        """The real docker CLI."""
        done = subprocess.run(
            ["docker", *args], input=input, capture_output=True, env=self.env, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, (args, done, self.log.read_text()[-3000:])
        return done

    def out(self, *args: str, **options: Any) -> str:
        return self.docker(*args, **options).stdout.decode().strip()

    def close(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.start()
        ids = self.out("ps", "-aq").split()
        if ids:
            self.docker("rm", "-f", "-v", *ids)
        assert self.end() == 0, self.log.read_text()
        left: Sequence[str] = []
        for _ in range(100):
            found = leaks.naming((str(self.directory), *self._id()))
            left = [line for line in found if line != f"temporary file: {self.directory}"]
            if not left:
                break
            time.sleep(0.05)
        text = self.log.read_text()
        assert not left, "left on the machine:\n" + "\n".join(left)
        assert "Traceback" not in text, text
        shutil.rmtree(self.directory)

    def _id(self) -> tuple[str, ...]:
        record = self.root / "engine-id"
        return (record.read_text().strip(),) if record.exists() else ()


@pytest.fixture
def fresh() -> Iterator[Engine]:
    """An engine that is not started yet."""
    engine = Engine(Path(tempfile.mkdtemp(prefix="proa-api-")))
    yield engine
    engine.close()


def load_busybox(engine: Engine, tar: Path) -> None:
    status, said = engine.ask("POST", "/images/create?fromSrc=-&repo=busybox&changes=CMD%20sh", tar.read_bytes())
    assert status == 200, said


@pytest.fixture(scope="module")
def shared(busybox_tar: Path) -> Iterator[Engine]:
    """An engine with the image `busybox`, for all tests of a module."""
    engine = Engine(Path(tempfile.mkdtemp(prefix="proa-api-")))
    engine.start()
    load_busybox(engine, busybox_tar)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def remote(pairs: Path, busybox_tar: Path) -> Iterator[Engine]:
    """An engine with the image `busybox` that listens with mutual TLS at its `address`, IP:PORT, too."""
    engine = Engine(Path(tempfile.mkdtemp(prefix="proa-api-")))
    engine.start(*engine.tls_options(pairs))
    load_busybox(engine, busybox_tar)
    yield engine
    engine.close()


@pytest.fixture
def ready(fresh: Engine, busybox_tar: Path) -> Engine:
    """An engine with the image `busybox`, for one test."""
    fresh.start()
    load_busybox(fresh, busybox_tar)
    return fresh


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, command: Sequence[str], env: dict[str, str], size: tuple[int, int]) -> None:
        import fcntl
        import struct
        import termios

        self.master, slave = os.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            close_fds=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = b""

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def expect(self, text: bytes, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            if select.select([self.master], [], [], left)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    data = b""
                assert data, (text, self.seen)
                self.seen += data

    def resize(self, size: tuple[int, int]) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def end(self, seconds: float = 20) -> int:
        """Wait for the program; its exit status."""
        try:
            return self.process.wait(seconds)
        finally:
            os.close(self.master)


@pytest.fixture
def terminal() -> Callable[..., Terminal]:
    def run(engine: Engine, *args: str, size: tuple[int, int] = (33, 101)) -> Terminal:
        return Terminal(["docker", *args], engine.env | {"TERM": "xterm"}, size)

    return run
