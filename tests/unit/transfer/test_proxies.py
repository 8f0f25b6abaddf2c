"""Which proxy is asked for which host."""

from __future__ import annotations

import pytest

from proa.errors import Invalid
from proa.transfer.proxies import Proxies, Proxy
from proa.transfer.wire import Origin, origin_of

BOTH = Proxies(https="http://user:p%40ss@proxy.lan:3128", http="proxy2.lan")


def test_by_scheme() -> None:
    assert BOTH.proxy_for(Origin("https", "reg.lan", 443)) == Proxy("http://proxy.lan:3128", "user:p@ss")
    assert BOTH.proxy_for(Origin("http", "reg.lan", 80)) == Proxy("http://proxy2.lan:80")
    assert Proxies().proxy_for(Origin("https", "reg.lan", 443)) is None
    for host in ("localhost", "127.0.0.1", "::1"):
        assert BOTH.proxy_for(Origin("https", host, 443)) is None


@pytest.mark.parametrize(
    ("no", "url", "direct"),
    [
        ("reg.lan", "https://reg.lan", True),
        ("reg.lan", "https://sub.reg.lan", True),
        ("reg.lan", "https://otherreg.lan", False),
        (".reg.lan", "https://sub.reg.lan", True),
        (".reg.lan", "https://reg.lan", False),
        ("*.reg.lan", "https://sub.reg.lan", True),
        ("a, REG.lan ,b", "https://reg.lan", True),
        ("reg.lan:5000", "https://reg.lan:5000", True),
        ("reg.lan:5000", "https://reg.lan", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://ten.lan", False),
        ("192.168.1.7", "https://192.168.1.7:5000", True),
        ("192.168.1.7:80", "https://192.168.1.7:5000", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]:5000", "https://[fd00::1]:5000", True),
        ("fd00::1", "https://[fd00:0::1]", True),
        ("*", "https://anything.example", True),
        ("", "https://anything.example", False),
        ("/,,:", "https://anything.example", False),
    ],
)
def test_exceptions(no: str, url: str, direct: bool) -> None:
    proxies = Proxies(https="http://proxy.lan", http="http://proxy.lan", no=no)
    assert (proxies.proxy_for(origin_of(url)) is None) is direct


def test_from_the_environment() -> None:
    found = Proxies.from_environment({"HTTPS_PROXY": "http://a", "https_proxy": "http://b", "NO_PROXY": "x"})
    assert found == Proxies(https="http://b", no="x")
    assert Proxies.from_environment({"HTTP_PROXY": "http://a"}) == Proxies(http="http://a")
    assert Proxies.from_environment({"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"}) == Proxies()
    assert Proxies(https="http://c").over(found) == Proxies(https="http://c", no="x")


@pytest.mark.parametrize("text", ["socks5://proxy.lan", "http://", "http://proxy.lan:x", "http://[::1"])
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(Invalid, match="invalid proxy"):
        Proxies(https=text).proxy_for(Origin("https", "reg.lan", 443))


def test_passwords_are_not_shown() -> None:
    shown = BOTH.redacted()
    assert shown == Proxies(https="http://xxxxx:xxxxx@proxy.lan:3128", http="proxy2.lan")
    assert "p%40ss" not in Proxies(https="user:p%40ss@x:1").redacted().https
