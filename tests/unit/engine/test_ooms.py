"""A container that was killed for want of memory before anybody watched its group."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proa.engine import ooms


@pytest.mark.parametrize(("started", "events"), [(True, ["oom"]), (False, [])])
def test_an_early_kill_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool, events: list[str]
) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    told: list[str] = []
    agenda = SimpleNamespace(later=lambda _s, call: call(), watch=lambda *_: None, forget=lambda _: None)
    containers = SimpleNamespace(announce=lambda _entry, action: told.append(action))
    engine: Any = SimpleNamespace(id="e", agenda=agenda, containers=containers)
    host = SimpleNamespace(memory=1 << 24, cgroup_parent="")
    entry: Any = SimpleNamespace(record=SimpleNamespace(id="c", host=host, state=SimpleNamespace(oom_killed=False)))
    monkeypatch.setattr(ooms.cgroups, "open_existing", lambda _: SimpleNamespace(directories={}))
    group = ooms._Group(str(tmp_path), os.eventfd(0), version2=False)
    monkeypatch.setattr(ooms, "_open", lambda _: group)

    watching = ooms.Ooms(engine)
    watching.watch(entry, started=started)

    assert told == events
    assert entry.record.state.oom_killed is started
    assert watching.forget(entry)
