"""What a short command may import: modules are the budget that does not depend on how busy the machine is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import proa

PROA = Path(sys.executable).with_name("proa")
SOURCE = str(Path(proa.__file__).parents[1])

HEAVY = {
    *("argparse", "asyncio", "collections", "dataclasses", "datetime", "email", "enum", "functools", "http.client"),
    *("inspect", "json", "logging", "msgspec", "os", "pathlib", "re", "rich", "selectors", "signal", "site", "socket"),
    *("ssl", "struct", "subprocess", "tempfile", "threading", "typing", "urllib", "aiohttp", "proa.engine", "proa.api"),
}


def imported_by(*arguments: str, env: dict[str, str] | None = None) -> set[str]:
    """The modules in sys.modules after a command, in an interpreter started as the launcher does."""
    code = (
        f"import sys; sys.path.append({SOURCE!r}); sys.argv[0] = 'proa'\n"
        "from proa.cli import dispatch\n"
        "status = dispatch(sys.argv[1:])\n"
        "sys.stderr.write('\\n@' + ' '.join(sys.modules) + '\\n')\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    return set(done.stderr.rpartition("@")[2].split())


class FakeEngine(threading.Thread):
    """Answers every request on a unix socket with one JSON document."""

    def __init__(self, path: str, document: object) -> None:
        super().__init__(daemon=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._body = json.dumps(document).encode()
        self.requests: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                self.requests.append(data)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._body)
                connection.sendall(head + self._body)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join(10)


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[dict[str, str]]:
    record = {"Id": "ab" * 32, "Image": "x", "Command": "sh", "Created": 1, "Status": "Up", "Names": ["/a"]}
    engine = FakeEngine(f"{tmp_path}/s", [record])
    engine.start()
    yield {"PROA_HOST": f"unix://{tmp_path}/s"}
    engine.stop()


def test_version_imports_next_to_nothing() -> None:
    modules = imported_by("--version")
    assert not modules & HEAVY
    assert {m for m in modules if m.startswith("proa")} == {"proa", "proa._version", "proa.cli"}


def test_ps_imports_nothing_heavy(listing: dict[str, str]) -> None:
    assert not imported_by("ps", env=listing) & HEAVY


def test_the_parts_of_run_and_exec_are_light() -> None:
    modules = imported_by("run", "--help") | imported_by("exec", "--help")
    assert {"proa.cli.container_spec", "proa.client.connection"} <= modules
    assert not modules & HEAVY


def test_exec_puts_off_what_its_answer_takes_and_that_is_light() -> None:
    later = {"proa.errors", "proa.client.frames", "proa.cli.session"}
    assert not imported_by("exec", "--help") & later
    code = f"import sys; sys.path.append({SOURCE!r}); import {', '.join(sorted(later))}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_importing_proa_is_cheap_and_lazy() -> None:
    code = f"import sys; sys.path.append({SOURCE!r}); import proa; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_a_blocking_client_does_not_import_asyncio() -> None:
    code = "import sys, proa; proa.connect('unix:///nowhere'); print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"asyncio", "aiohttp", "ssl", "subprocess", "urllib3", "http.client"}


def test_everything_exported_exists_and_nothing_else_is_promised() -> None:
    for name in proa.__all__:
        assert getattr(proa, name) is not None
    with pytest.raises(AttributeError):
        _ = proa.nothing_of_the_kind  # type: ignore[attr-defined]


def test_the_version_is_printed() -> None:
    for flag in ("--version", "-v"):
        done = subprocess.run([PROA, flag], capture_output=True, text=True, check=True)
        assert done.stdout == f"proa version {proa.__version__}\n"
