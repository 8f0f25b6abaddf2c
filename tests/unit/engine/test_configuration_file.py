from __future__ import annotations

from pathlib import Path

import pytest

from proa.engine.config import Config, Tcp, config_path, load_config
from proa.engine.types import LogConfig
from proa.errors import Invalid
from proa.oci import ShortNames
from proa.transfer import Proxies, Registries


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    config = load_config(tmp_path / "proa.toml")
    assert config == Config()
    assert (config.publish_address, config.insecure_registries, config.registry_mirrors) == ("0.0.0.0", (), {})


def test_everything_at_once(tmp_path: Path) -> None:
    path = tmp_path / "proa.toml"
    path.write_text(
        'publish-address = "127.0.0.1"\ninsecure-registries = ["registry.lan:5000", "10.0.0.1"]\n'
        '[registry-mirrors]\n"docker.io" = ["mirror.lan:5000", "other.lan"]\n'
    )
    assert load_config(path) == Config(
        publish_address="127.0.0.1",
        insecure_registries=("registry.lan:5000", "10.0.0.1"),
        registry_mirrors={"docker.io": ("mirror.lan:5000", "other.lan")},
    )
    path.write_text(
        'certs-dirs = ["/c"]\ntoken-servers = ["auth.lan"]\nmax-concurrent-downloads = 9\nmax-concurrent-uploads = 2\n'
        'default-registry = "reg.lan"\n[short-names]\nx = "reg.lan/y"\n[proxies]\nhttps = "http://p"\nno = "n"\n'
    )
    config = load_config(path)
    assert config.registries == Registries(
        certs_dirs=(Path("/c"),),
        token_servers=("auth.lan",),
        proxies=Proxies(https="http://p", no="n"),
        downloads=9,
        uploads=2,
    )
    assert config.short_names == ShortNames(default_registry="reg.lan", aliases={"x": "reg.lan/y"})
    path.write_text('log-driver = "cri"\n[log-opts]\nmax-size = "50m"\n')
    assert load_config(path).default_log == LogConfig(type="cri", config={"max-size": "50m"})
    path.write_text("# nothing\n")
    assert load_config(path) == Config()
    path.write_text('publish-address = "::1"\n')
    assert load_config(path).publish_address == "::1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("publish-address = ", ""),
        ('publish-address = "everywhere"', "everywhere"),
        ("publish-address = 1", "publish-address"),
        ('publish_address = "127.0.0.1"', "publish_address"),
        ('insecure-registries = "one"', "insecure-registries"),
        ("insecure-registries = [1]", "insecure-registries"),
        ('[registry-mirrors]\n"docker.io" = "one"', "registry-mirrors"),
        ("[unknown]\n", "unknown"),
        ('log-driver = "gelf"', "gelf"),
        ('log-driver = "cri"\n[log-opts]\ntag = "x"', "unknown log opt 'tag'"),
        ("[log-opts]\nmax-file = 3", "log-opts"),
        ("max-concurrent-downloads = 0", "max-concurrent-downloads"),
        ('default-registry = "no host"', "no host"),
        ('[short-names]\nx = "y"', "y"),
        ('[proxies]\nftp = "y"', "proxies"),
        ("[tcp]\n", "address"),
        ('[tcp]\naddress = "127.0.0.1:1"\ntls = true', "tls"),
        ('[tcp]\naddress = "127.0.0.1:1"\ntls-key = "key.pem"', "key.pem"),
        ("\xff", ""),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "proa.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Invalid) as caught:
        load_config(path)
    assert str(path) in caught.value.message
    assert named in caught.value.message


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROA_CONFIG", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert config_path() == Path("/etc/proa/proa.toml")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.conf")
    assert config_path() == Path("/home/me/.conf/proa/proa.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert config_path() == Path("/home/me/.config/proa/proa.toml")
    monkeypatch.setenv("PROA_CONFIG", "/else/where.toml")
    assert config_path() == Path("/else/where.toml")


def test_address_pools_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "proa.toml"
    path.write_text('address-pools = ["10.200.0.0/16"]\n')
    assert load_config(path).address_pools == ("10.200.0.0/16",)
    for bad in ("10.200.0.1/16", "fd00::/8", "pool"):
        path.write_text(f'address-pools = ["{bad}"]\n')
        with pytest.raises(Invalid, match=r"proa\.toml"):
            load_config(path)


def test_where_it_listens_besides(tmp_path: Path) -> None:
    path = tmp_path / "proa.toml"
    path.write_text('[tcp]\naddress = "[::1]:2375"\nwithout-tls = true\n')
    assert load_config(path).tcp == Tcp(address="[::1]:2375", without_tls=True)
    path.write_text('[tcp]\naddress = "192.0.2.7:1"\ntls-ca = "/a"\ntls-cert = "/c"\ntls-key = "/k"\n')
    assert load_config(path).tcp == Tcp(address="192.0.2.7:1", tls_ca="/a", tls_cert="/c", tls_key="/k")
