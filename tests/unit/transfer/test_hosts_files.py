"""containerd's hosts.toml, and what a configuration says about registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from proa.errors import Invalid
from proa.transfer.hosts import find_hosts_file
from proa.transfer.registries import Registries
from proa.transfer.wire import Origin

WHOLE = """
server = "https://upstream.example"
ca = "/etc/own.crt"

[host."https://mirror.lan:5000"]
  capabilities = ["pull", "resolve"]
  ca = ["a.crt", "/etc/b.crt"]
  client = [["c.cert", "c.key"], ["both.pem", ""]]
  skip_verify = true
  dial_timeout = "3s"
  [host."https://mirror.lan:5000".header]
    x-one = "1"
    x-two = ["a", "b"]

[host."http://second.lan/some/api"]
  override_path = true
  capabilities = ["push"]

[host."third.lan/deep"]

[host."localhost:5000"]
  client = "one.pem"
"""


def write(folder: Path, registry: str, text: str) -> Path:
    (folder / registry).mkdir(parents=True)
    (folder / registry / "hosts.toml").write_text(text)
    return folder


def test_a_whole_file(tmp_path: Path) -> None:
    file = find_hosts_file([write(tmp_path, "docker.io", WHOLE)], "docker.io")
    assert file is not None
    assert file.server is not None
    assert (file.server.origin, file.server.prefix) == (Origin("https", "upstream.example", 443), "/v2")
    assert file.server.tls.authorities == (Path("/etc/own.crt"),)
    assert file.server.capabilities == {"pull", "resolve", "push"}
    first, second, third, fourth = file.mirrors
    here = tmp_path / "docker.io"
    assert first.origin == Origin("https", "mirror.lan", 5000)
    assert first.tls == (
        (here / "a.crt", Path("/etc/b.crt")),
        ((here / "c.cert", here / "c.key"), (here / "both.pem", None)),
        False,
    )
    assert first.headers == {"x-one": "1", "x-two": "a, b"}
    assert (second.origin.url, second.prefix, second.capabilities) == ("http://second.lan", "/some/api", {"push"})
    assert (third.origin.url, third.prefix, third.capabilities) == (
        "https://third.lan",
        "/deep/v2",
        {"pull", "resolve"},
    )
    assert (fourth.origin.url, fourth.prefix) == ("http://localhost:5000", "/v2")
    assert fourth.tls.pairs == ((here / "one.pem", None),)


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    server = 'server = "https://{}"\n'.format
    first, second = tmp_path / "1", tmp_path / "2"
    write(first, "_default", server("any.lan"))
    write(first, "host.lan_5000_", server("underscores.lan"))
    write(second, "host.lan:5000", server("late.lan"))
    write(second, "late.lan", server("named.lan"))

    def found(registry: str) -> str:
        file = find_hosts_file([first, second], registry)
        assert file is not None
        assert file.server is not None
        return file.server.origin.host

    assert found("host.lan:5000") == "underscores.lan"
    assert found("late.lan") == "named.lan"
    assert found("unknown.lan") == "any.lan"
    assert find_hosts_file([second], "unknown.lan") is None
    assert find_hosts_file([first], "../1/_default") is None


@pytest.mark.parametrize(
    "text",
    [
        "server = ",
        "server = 5",
        'server = "ftp://x"',
        'host = "x"',
        '[host."https://x"]\ncapabilities = ["fly"]',
        '[host."https://x"]\ncapabilities = 1',
        '[host."https://x"]\nca = [1]',
        '[host."https://x"]\nclient = [["a", "b", "c"]]',
        '[host."https://x"]\nskip_verify = "yes"',
        '[host."https://user@x"]',
        '[host."https://x".header]\n"bad name" = "x"',
        '[host."https://x".header]\nx = "a\\nb"',
        "x = 1" + " " * (1 << 20),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid, match=r"reg\.lan/hosts\.toml is not valid"):
        find_hosts_file([write(tmp_path, "reg.lan", text)], "reg.lan")


def urls(hosts: list) -> list[str]:  # type: ignore[type-arg]
    return [host.origin.url for host in hosts]


def test_where_a_registry_is() -> None:
    none = Registries(certs_dirs=())
    assert urls(none.servers("docker.io")) == ["https://registry-1.docker.io"]
    assert urls(none.servers("reg.lan:5000")) == ["https://reg.lan:5000"]
    assert urls(none.servers("127.0.0.1:5000")) == ["http://127.0.0.1:5000", "https://127.0.0.1:5000"]
    assert urls(none.servers("reg.lan", plain_http=True)) == ["http://reg.lan"]
    asked = none.servers("reg.lan", insecure=True)
    assert urls(asked) == ["https://reg.lan", "http://reg.lan"]
    assert not asked[0].tls.verify
    with pytest.raises(Invalid, match="invalid registry host"):
        none.servers("bad host")


def test_a_hosts_file_goes_before_the_name(tmp_path: Path) -> None:
    write(tmp_path, "reg.lan", 'server = "http://10.0.0.9:80/prefix"\n[host."https://m.lan"]\n')
    write(tmp_path, "ca.lan", 'ca = "x.crt"\n[header]\nx-key = "k"\n')
    found = Registries(certs_dirs=(tmp_path,), mirrors={"reg.lan": ("http://first.lan", "127.0.0.1:9/")})
    (server,) = found.servers("reg.lan")
    assert (server.origin.url, server.prefix) == ("http://10.0.0.9", "/prefix/v2")
    first, second, third = found.before("reg.lan")
    assert (urls(first), urls(third)) == (["http://first.lan"], ["https://m.lan"])
    assert urls(second) == ["http://127.0.0.1:9", "https://127.0.0.1:9"]
    assert {capability for host in (*first, *second) for capability in host.capabilities} == {"pull", "resolve"}
    (own,) = found.servers("ca.lan")
    assert (own.tls.authorities, own.headers) == ((tmp_path / "ca.lan" / "x.crt",), {"x-key": "k"})


@pytest.mark.parametrize(
    ("registry", "answer"),
    [
        ("reg.lan", True),
        ("reg.lan:5000", True),
        ("other.lan:5000", True),
        ("other.lan:5001", False),
        ("10.1.2.3:5000", True),
        ("11.1.2.3", False),
        ("[fd00::7]:5000", True),
        ("[fe00::7]:5000", False),
        ("192.168.1.7", True),
    ],
)
def test_which_are_insecure(registry: str, answer: bool) -> None:
    listed = Registries(insecure=("reg.lan", "other.lan:5000", "10.0.0.0/8", "fd00::/8", "192.168.1.7"))
    assert listed.is_insecure(registry) is answer
