"""Docker's seccomp profiles to the runtime-spec's, decided for one container and host."""

from __future__ import annotations

import os
from typing import Any

import pytest

from proa.engine.seccomp_profile import from_docker_profile
from proa.errors import Invalid

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
OTHER = "s390x"


def names(*rules: dict[str, Any], capabilities: tuple[str, ...] = ()) -> list[list[str]]:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW", **rule} for rule in rules]}
    return [rule["names"] for rule in from_docker_profile(profile, capabilities)["syscalls"]]


@pytest.mark.parametrize(
    ("condition", "capabilities", "applies"),
    [
        ({}, (), True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, (), False),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, ("CAP_SYS_ADMIN",), True),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, ("CAP_SYS_ADMIN",), False),
        ({"includes": {"arches": [MACHINE]}}, (), True),
        ({"includes": {"arches": [OTHER]}}, (), False),
        ({"excludes": {"arches": [MACHINE]}}, (), False),
        ({"includes": {"minKernel": "4.8"}}, (), True),
        ({"includes": {"minKernel": "999.0"}}, (), False),
        ({"excludes": {"minKernel": "4.8"}}, (), False),
        ({"includes": {}, "excludes": {}}, (), True),
        ({"includes": {"arches": [MACHINE], "caps": ["CAP_BPF"]}}, (), False),
    ],
)
def test_conditions(condition: dict[str, Any], capabilities: tuple[str, ...], applies: bool) -> None:
    assert names({"names": ["x"], **condition}, capabilities=capabilities) == ([["x"]] if applies else [])


def test_the_whole() -> None:
    native = "SCMP_ARCH_X86_64" if MACHINE == "amd64" else "SCMP_ARCH_AARCH64"
    found = from_docker_profile(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "archMap": [{"architecture": native, "subArchitectures": ["SUB"]}, {"architecture": "OTHER"}],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"name": "old", "action": "SCMP_ACT_ALLOW"},
                {"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": [{"index": 0}], "comment": "x"},
            ],
        },
        [],
    )
    assert found == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [native, "SUB"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["old"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["a"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0}], "errnoRet": 38},
        ],
    }


@pytest.mark.parametrize(
    "document", [[], {}, {"defaultAction": 1}, {"defaultAction": "x", "syscalls": {}}, None, "text"]
)
def test_no_profile(document: Any) -> None:
    with pytest.raises(Invalid):
        from_docker_profile(document, [])
