"""Turn an OCI config.json into an isolated process.

    plan = compile_plan(config, rootfs_mounts)      pure; refuses what it cannot or should not do
    cgroup = cgroups.create("/proa/<id>", config["linux"]["resources"])
    process = launch(plan, stdio=Stdio(0, 1, 2), cgroup=cgroup)
    more = launch_exec(process, process_config, config=config, stdio=Stdio(0, 1, 2), cgroup=cgroup)
    ... wait on process.pidfd; then cgroup.remove()

Only for single-threaded processes. `preload()` loads everything in a parent that forks monitors. `defaults` is the data
a config is written from; it is cheap to import, and the rest is loaded on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 5 ms to import, and every verb of `proa-runtime` imports this package
if TYPE_CHECKING:
    from typing import Any

    from proa.runtime.cgroups import Cgroup, Stats
    from proa.runtime.launching import Process, Stdio, launch, launch_exec, preload
    from proa.runtime.plan import Plan, compile_exec_plan, compile_plan
    from proa.runtime.users import ResolvedUser, resolve_user

_HOMES = {
    "Cgroup": "cgroups",
    "Stats": "cgroups",
    "Process": "launching",
    "Stdio": "launching",
    "launch": "launching",
    "launch_exec": "launching",
    "preload": "launching",
    "Plan": "plan",
    "compile_exec_plan": "plan",
    "compile_plan": "plan",
    "ResolvedUser": "users",
    "resolve_user": "users",
}

__all__ = [
    "Cgroup",
    "Plan",
    "Process",
    "ResolvedUser",
    "Stats",
    "Stdio",
    "compile_exec_plan",
    "compile_plan",
    "launch",
    "launch_exec",
    "preload",
    "resolve_user",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
