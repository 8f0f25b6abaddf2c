from __future__ import annotations

from typing import Any

import pytest

from proa.engine.security import resolve_security
from proa.engine.types import HostConfig
from proa.errors import Invalid, ProaError, Unsupported
from proa.runtime import defaults

FOURTEEN = set(defaults.CAPABILITIES)
ALL = set(defaults.ALL_CAPABILITIES)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (None, None, FOURTEEN),
        (["NET_ADMIN"], None, FOURTEEN | {"CAP_NET_ADMIN"}),
        (["cap_sys_time", "SYS_TIME"], None, FOURTEEN | {"CAP_SYS_TIME"}),
        (["CHOWN"], None, FOURTEEN),
        (None, ["chown"], FOURTEEN - {"CAP_CHOWN"}),
        (None, ["ALL"], set()),
        (["NET_ADMIN"], ["ALL"], {"CAP_NET_ADMIN"}),
        (["ALL"], None, ALL),
        (["all"], ["SYS_ADMIN"], ALL - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], ALL),
        (["SYS_ADMIN"], ["SYS_ADMIN"], FOURTEEN | {"CAP_SYS_ADMIN"}),
    ],
)
def test_capabilities(add: Any, drop: Any, expected: set[str]) -> None:
    found = resolve_security(HostConfig(cap_add=add, cap_drop=drop)).capabilities
    assert set(found) == expected
    assert len(found) == len(set(found))


@pytest.mark.parametrize("name", ["", "NOPE", "CAP_", "CAP_CAP_CHOWN", "SYS ADMIN", "CAP_ALL"])
def test_unknown_capabilities(name: str) -> None:
    for host in (HostConfig(cap_add=[name]), HostConfig(cap_drop=[name])):
        with pytest.raises(Invalid, match="invalid capability"):
            resolve_security(host)


def test_there_are_fourteen_and_none_of_them_is_mighty() -> None:
    assert len(FOURTEEN) == 14
    assert not FOURTEEN & {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_DAC_READ_SEARCH", "CAP_BPF"}


def test_what_one_gets_for_nothing() -> None:
    security = resolve_security(HostConfig())
    assert security.seccomp == "default"
    assert security.no_new_privileges is False
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(security.masked_paths)
    assert "/proc/sys" in security.readonly_paths


def test_privileged() -> None:
    security = resolve_security(HostConfig(privileged=True, cap_drop=["ALL"]))
    assert set(security.capabilities) == ALL
    assert (security.seccomp, security.masked_paths, security.readonly_paths) == ("unconfined", [], [])


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("no-new-privileges", "no_new_privileges", True),
        ("no-new-privileges=true", "no_new_privileges", True),
        ("no-new-privileges:true", "no_new_privileges", True),
        ("no-new-privileges=false", "no_new_privileges", False),
        ("seccomp=unconfined", "seccomp", "unconfined"),
        ("seccomp:unconfined", "seccomp", "unconfined"),
        ("seccomp=builtin", "seccomp", "default"),
        ("systempaths=unconfined", "masked_paths", []),
        ("systempaths=unconfined", "readonly_paths", []),
        ("apparmor=unconfined", "seccomp", "default"),
        ("label=disable", "seccomp", "default"),
    ],
)
def test_options(option: str, field: str, value: Any) -> None:
    assert getattr(resolve_security(HostConfig(security_opt=[option])), field) == value


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("", Invalid),
        ("nope", Invalid),
        ("nope=x", Invalid),
        ("no-new-privileges=maybe", Invalid),
        ("seccomp=", Invalid),
        ("seccomp=/etc/profile.json", Invalid),
        ("seccomp={", Invalid),
        ("seccomp={}", Invalid),
        ('seccomp={"defaultAction": 1}', Invalid),
        ('seccomp={"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_ERRNO"}', Invalid),
        ("systempaths=other", Invalid),
        ("label=type:x", Unsupported),
    ],
)
def test_options_that_are_refused(option: str, kind: type[ProaError]) -> None:
    with pytest.raises(kind):
        resolve_security(HostConfig(security_opt=[option]))


def test_paths_a_client_names() -> None:
    security = resolve_security(HostConfig(masked_paths=["/proc/x"], readonly_paths=[]))
    assert (security.masked_paths, security.readonly_paths) == (["/proc/x"], [])
