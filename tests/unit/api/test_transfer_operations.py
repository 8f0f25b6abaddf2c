"""Pull, push, load, import and save over the API, with a small engine in place of registries."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from proa.api.operations.transfers import joined
from proa.engine.events import Events
from proa.errors import Corrupt, NotFound, Unauthorized
from proa.transfer import ProgressEvent

Serve = Callable[..., Any]


class Transfers:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.released = threading.Event()

    def pull(
        self, reference: str, *, platform: str, all_platforms: bool, credentials: Any, progress: Any, stopped: Any
    ) -> str:
        self.calls.append((reference, platform, credentials))
        if "missing" in reference:
            raise NotFound(f"manifest for {reference} not found")
        if "private" in reference:
            raise Unauthorized("pull access denied")
        progress(ProgressEvent(status=f"Pulling from {reference}", id="1"))
        for i in range(100):
            progress(ProgressEvent(status="Downloading", id="abc", current=i + 1, total=100))
        if "corrupt" in reference:
            raise Corrupt("layer abc does not match its digest")
        if "endless" in reference:
            try:
                while True:
                    progress(ProgressEvent(status="Waiting", id="x" * 1000))
            finally:
                self.released.set()
        progress(ProgressEvent(status="Digest: sha256:0"))
        return "sha256:1"

    def pull_all_tags(self, repository: str, *, progress: Any, **_: Any) -> list[str]:
        self.calls.append((repository, "all tags"))
        progress(ProgressEvent(status="all"))
        return ["1", "2"]

    push_all_tags = pull_all_tags

    def push(self, reference: str, *, credentials: Any, progress: Any, **_: Any) -> str:
        self.calls.append((reference, credentials))
        progress(ProgressEvent(aux={"Tag": "1", "Digest": "sha256:0", "Size": 5}))
        return "sha256:0"

    def login(self, credentials: Any) -> None:
        self.calls.append((credentials.server, credentials.username))
        if credentials.password != "right":
            raise Unauthorized("login was refused")

    def load(self, stream: Any, *, platform: str, progress: Any) -> list[str]:
        first = stream.read(4)
        if first == b"bad!":
            raise Corrupt("not an archive")
        total = len(first)
        while data := stream.read(65536):
            total += len(data)
        progress(ProgressEvent(message=f"Loaded image: {total}\n"))
        return ["x"]

    def import_image(self, stream: Any, **options: Any) -> str:
        self.calls.append(options)
        stream.read()
        options["progress"](ProgressEvent(status="sha256:2"))
        return "sha256:2"

    def save(self, names: list[str], out: Any, **_: Any) -> None:
        out.write(repr(names).encode())


@pytest.fixture
def live(serve: Serve) -> Any:
    def get(name: str, platform: str) -> None:
        if name == "nope":
            raise NotFound("No such image: nope:latest")

    return serve(SimpleNamespace(events=Events(), transfers=Transfers(), images=SimpleNamespace(get=get)))


def _lines(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


def test_pull(live: Any) -> None:
    auth = base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').decode()
    answer = live.ask(
        "POST",
        "/v1.50/images/create?fromImage=127.0.0.1%3A5000%2Fbb&tag=1&platform=linux%2Famd64",
        headers=[f"X-Registry-Auth: {auth}"],
    )
    lines = _lines(answer)
    assert answer.body.endswith(b"\r\n")
    assert lines[0] == {"status": "Pulling from 127.0.0.1:5000/bb:1", "id": "1"}
    assert lines[1]["progressDetail"] == {"current": 1, "total": 100}
    assert lines[-1] == {"status": "Digest: sha256:0"}
    reference, platform, credentials = live.engine.transfers.calls[0]
    assert (reference, platform) == ("127.0.0.1:5000/bb:1", "linux/amd64")
    assert (credentials.username, credentials.password) == ("u", "p")


@pytest.mark.parametrize("header", ["e30=", "", "bnVsbA=="[:0]])
def test_no_credentials(live: Any, header: str) -> None:
    assert live.ask("POST", "/images/create?fromImage=x&tag=1", headers=[f"X-Registry-Auth: {header}"]).status == 200
    assert not live.engine.transfers.calls[0][2]


def test_credentials_that_are_nonsense_count_as_none(live: Any) -> None:
    assert live.ask("POST", "/images/create?fromImage=x&tag=1", headers=["X-Registry-Auth: %%%"]).status == 200
    assert not live.engine.transfers.calls[0][2]


def test_failures_before_the_first_line_have_a_status(live: Any) -> None:
    assert live.ask("POST", "/images/create?fromImage=missing&tag=1").status == 404
    assert live.ask("POST", "/images/create?fromImage=private&tag=1").status == 401
    assert live.ask("POST", "/images/create").status == 400
    assert live.ask("POST", "/images/create?fromSrc=http://x/y.tar").status == 501


def test_later_failures_are_the_last_line(live: Any) -> None:
    answer = live.ask("POST", "/images/create?fromImage=corrupt&tag=1")
    assert answer.status == 200
    last = _lines(answer)[-1]
    assert last["error"] == last["errorDetail"]["message"] == "layer abc does not match its digest"
    assert last["errorDetail"]["code"] == "corrupt"


def test_a_pull_whose_client_left_is_cancelled(live: Any) -> None:
    with live.client() as client:
        client.send(b"POST /images/create?fromImage=endless&tag=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        client.head()
        client.chunk()
    assert live.engine.transfers.released.wait(5)


@pytest.mark.parametrize("path", ["/images/create?fromImage=h%3A5000%2Fx", "/images/h:5000/x/push?tag="])
def test_without_a_tag_all_of_them_are_meant(live: Any, path: str) -> None:
    assert live.ask("POST", path).status == 200
    assert live.engine.transfers.calls == [("h:5000/x", "all tags")]


def test_push(live: Any) -> None:
    answer = live.ask("POST", "/images/127.0.0.1:5000/bb/push?tag=1", headers=["X-Registry-Auth: e30="])
    assert _lines(answer) == [{"progressDetail": {}, "aux": {"Tag": "1", "Digest": "sha256:0", "Size": 5}}]
    assert live.engine.transfers.calls[0][0] == "127.0.0.1:5000/bb:1"


@pytest.mark.parametrize("size", [0, 5, 5 << 20])
def test_load(live: Any, size: int) -> None:
    answer = live.ask("POST", "/images/load?quiet=0", b"t" * size)
    assert _lines(answer) == [{"stream": f"Loaded image: {size}\n"}]


def test_load_refused_before_the_body_was_read(live: Any) -> None:
    with live.client() as client:
        client.send(b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\n\r\nbad!")
        sent = 0
        began = time.monotonic()
        try:
            while sent < 400_000_000:
                client.send(b"x" * 65536)
                sent += 65536
        except OSError:
            pass
        assert client.answer().status == 500
        assert time.monotonic() - began < 8


def test_import(live: Any) -> None:
    answer = live.ask(
        "POST", "/images/create?fromSrc=-&repo=bb&tag=1&message=m&changes=CMD+a&changes=ENV+b%3Dc&platform=", b"tar"
    )
    assert _lines(answer) == [{"status": "sha256:2"}]
    options = live.engine.transfers.calls[0]
    assert (options["repository"], options["tag"], options["message"]) == ("bb", "1", "m")
    assert options["changes"] == ["CMD a", "ENV b=c"]


def test_save(live: Any) -> None:
    assert live.ask("GET", "/images/a/b:1/get").body == b"['a/b:1']"
    assert live.ask("GET", "/images/get?names=a&names=b%2Cc").body == b"['a', 'b', 'c']"
    assert live.ask("GET", "/images/get?names=nope").status == 404
    assert live.ask("GET", "/images/get").status == 400


def test_long_operations_past_their_threads_are_refused(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live.service.pools.slow_running = 10_000
    answer = live.ask("POST", "/images/create?fromImage=x&tag=1")
    assert (answer.status, answer.json["code"]) == (503, "engine-busy")
    live.service.pools.slow_running = 0


def test_login(live: Any) -> None:
    answer = live.ask("POST", "/auth", b'{"username":"u","password":"right","serveraddress":"http://r:5000"}')
    assert (answer.status, answer.json["Status"]) == (200, "Login Succeeded")
    assert live.engine.transfers.calls == [("http://r:5000", "u")]
    assert live.ask("POST", "/auth", b'{"username":"u","password":"wrong","serveraddress":"r"}').status == 401
    assert live.ask("POST", "/auth", b"").status == 400


@pytest.mark.parametrize(
    ("repository", "tag", "reference"),
    [("a", "", "a"), ("a", "1", "a:1"), ("a", "sha256:0", "a@sha256:0"), ("h:5000/a", "1", "h:5000/a:1")],
)
def test_joined(repository: str, tag: str, reference: str) -> None:
    assert joined(repository, tag) == reference
