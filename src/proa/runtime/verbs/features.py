"""features: what this runtime can do (runtime-spec features.md)."""

from __future__ import annotations

import sys

from proa.runtime import defaults, mount_options
from proa.runtime.seccomp import compiler
from proa.runtime.steps.isolation import NAMESPACE_FLAGS
from proa.runtime.verbs import documents
from proa.runtime.verbs.options import Options, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["OPTIONS", "run"]

OPTIONS: dict[str, str] = {}
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def run(_settings: Settings, _options: Options, _words: list[str]) -> int:
    """The verb."""
    sys.stdout.write(documents.encode(features()) + "\n")
    return 0


def features() -> dict[str, Any]:
    """The document."""
    flags = sorted(compiler.FLAGS)
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": list(HOOKS),
        "mountOptions": mount_options.known(),
        "linux": {
            "namespaces": sorted(NAMESPACE_FLAGS),
            "capabilities": list(defaults.ALL_CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(compiler.ACTIONS),
                "operators": [f"SCMP_CMP_{name}" for name in compiler.OPERATORS],
                "archs": sorted(compiler.ARCHITECTURES),
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }
