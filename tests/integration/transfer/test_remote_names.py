"""Tag lists, catalogs and search answers, honest and not."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from proa.errors import ProaError, Unavailable, Unsupported
from proa.oci import parse_reference
from proa.transfer import Registries, delete_name, list_tags
from proa.transfer.remote import Remote
from proa.transfer.searching import Found, passes, search


def lists(start_server: Any, send_reply: Any, pages: dict[str, tuple[Any, str]]) -> Any:
    """A server of pages by their `last`: (document, Link header)."""

    def answer(handler: Any, body: bytes) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/v2/":
            return send_reply(handler, 200, b"{}")
        last = parse_qs(parts.query).get("last", [""])[0]
        document, link = pages[last]
        headers = {"Link": link} if link else {}
        return send_reply(handler, 200, json.dumps(document).encode(), headers)

    return start_server(answer)


def remote(server: Any) -> Remote:
    return Remote(parse_reference(f"{server.host}/some/repo"))


def test_pages_are_followed_by_their_cursor_only(start_server: Any, send_reply: Any) -> None:
    pages = {
        "": ({"name": "x", "tags": ["b", "a"]}, '<http://elsewhere.example/steal?n=2&last=b>; rel="next"'),
        "b": ({"tags": ["c"]}, "</v2/some/repo/tags/list?last=c>; rel=next"),
        "c": ({"tags": None}, ""),
    }
    server = lists(start_server, send_reply, pages)
    assert list_tags(remote(server)) == ["a", "b", "c"]
    assert all(path.startswith(("/v2/some/repo/tags/list", "/v2/")) for _, path, _ in server.asked)


@pytest.mark.parametrize(
    "document",
    [[], {"tags": "x"}, {"tags": [1]}, {"tags": ["../../x"]}, {"tags": ["a\x1b[31m"]}, {"tags": ["a" * 129]}],
)
def test_what_is_no_list_of_tags(start_server: Any, send_reply: Any, document: Any) -> None:
    with pytest.raises(Unavailable, match="no list of tags"):
        list_tags(remote(lists(start_server, send_reply, {"": (document, "")})))


def test_pages_that_do_not_end(start_server: Any, send_reply: Any) -> None:
    turning = ({"tags": ["a"]}, '</x?last=a>; rel="next"')
    with pytest.raises(Unavailable, match="do not end"):
        list_tags(remote(lists(start_server, send_reply, {"": turning, "a": turning})))


def test_hubs_search(start_server: Any, send_reply: Any, tmp_path: Any) -> None:
    results = [
        {"name": "busy\x1bbox", "description": "small\nand tidy", "star_count": 9, "is_official": True},
        {"name": 5},
        "x",
        {"name": "other/box", "star_count": "many", "is_automated": True},
    ]

    def answer(handler: Any, body: bytes) -> None:
        found = json.dumps({"results": results}).encode() if handler.path.startswith("/v1/search?") else b"{}"
        send_reply(handler, 200, found)

    server = start_server(answer)
    (tmp_path / "index.docker.io").mkdir()
    (tmp_path / "index.docker.io" / "hosts.toml").write_text(f'server = "http://{server.host}"\n')
    found = search("docker.io", "box & co", limit=3, registries=Registries(certs_dirs=(tmp_path,)))
    assert found == [
        Found(name="busy box", description="small and tidy", stars=9, official=True),
        Found(name="other/box", automated=True),
    ]
    assert server.asked[-1][1] == "/v1/search?q=box+%26+co&n=3"
    assert [f.name for f in found if passes(f, {"is-official": ["true"]})] == ["busy box"]
    assert [f.name for f in found if passes(f, {"stars": ["3"], "is-automated": ["false"]})] == ["busy box"]
    with pytest.raises(Unsupported, match="invalid filter"):
        passes(found[0], {"stars": ["x"]})


def test_a_registry_with_nothing_to_search(start_server: Any, send_reply: Any) -> None:
    server = start_server(lambda handler, body: send_reply(handler, 200 if handler.path == "/v2/" else 404, b"{}"))
    with pytest.raises(Unsupported, match="no search and no catalog"):
        search(server.host, "x")


def test_deleting_where_only_digests_can_be(start_registry: Any, make_image: Any) -> None:
    """Debian's registry deletes manifests only; another tag of the same image stays."""
    registry = start_registry()
    made = make_image(1, seed="deleting")
    registry.put(made, "proa/two:a")
    registry.put(made, "proa/two:b")
    repository = f"{registry.host}/proa/two"
    assert delete_name(Remote(parse_reference(f"{repository}:a"))) == "a"
    assert list_tags(Remote(parse_reference(repository))) == ["b"]
    assert Remote(parse_reference(f"{repository}:b")).resolve().digest == made.digest
    with pytest.raises(ProaError):
        delete_name(Remote(parse_reference(f"{repository}:a")))
