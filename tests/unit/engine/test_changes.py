from __future__ import annotations

from typing import Any

import pytest

from proa.engine.changes import apply_changes
from proa.errors import Invalid
from proa.oci import RunConfig


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('CMD ["a", "b c"]', "cmd", ["a", "b c"]),
        ("CMD a b", "cmd", ["/bin/sh", "-c", "a b"]),
        ('cmd ["a"', "cmd", ["/bin/sh", "-c", '["a"']),
        ("CMD [1]", "cmd", ["/bin/sh", "-c", "[1]"]),
        ("CMD []", "cmd", []),
        ('  EntryPoint   ["x"]  ', "entrypoint", ["x"]),
        ("ENV A=b", "env", ["OLD=1", "A=b"]),
        ("ENV A=b B=\"c d\" C='e f' OLD=2", "env", ["OLD=2", "A=b", "B=c d", "C=e f"]),
        ("ENV A b c", "env", ["OLD=1", "A=b c"]),
        ("LABEL x=y", "labels", {"old": "1", "x": "y"}),
        ('LABEL "a b"="c d"', "labels", {"old": "1", "a b": "c d"}),
        ("EXPOSE 80 90/udp", "exposed_ports", {"80/tcp": {}, "90/udp": {}}),
        ('VOLUME ["/a b", "/c"]', "volumes", {"/a b": {}, "/c": {}}),
        ("VOLUME /a /b", "volumes", {"/a": {}, "/b": {}}),
        ("USER 1000:1000", "user", "1000:1000"),
        ("WORKDIR /srv", "working_dir", "/srv"),
        ("WORKDIR sub", "working_dir", "/old/sub"),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("ONBUILD RUN x", "on_build", ["RUN x"]),
    ],
)
def test_instructions(line: str, field: str, value: Any) -> None:
    before = RunConfig(env=["OLD=1"], labels={"old": "1"}, working_dir="/old")
    after = apply_changes(before, [line])
    assert getattr(after, field) == value
    assert before == RunConfig(env=["OLD=1"], labels={"old": "1"}, working_dir="/old")


def test_they_apply_in_order() -> None:
    after = apply_changes(RunConfig(), ["WORKDIR /a", "WORKDIR b", "CMD x", 'CMD ["y"]', "ENV A=1", "ENV A=2"])
    assert (after.working_dir, after.cmd, after.env) == ("/a/b", ["y"], ["A=2"])


@pytest.mark.parametrize(
    "line",
    ["", "   ", "RUN rm -rf /", "FROM x", "COPY a b", "CMD", "CMD   ", "ENV", 'ENV A="b', "ENV A=b C", "ENV =b",
     "LABEL a=b =c", 'VOLUME ["/a"', "VOLUME [1]", "EXPOSE 80/tcp/udp", "EXPOSE http", "EXPOSE 70000",
     "STOPSIGNAL NOPE"],
)  # fmt: skip
def test_what_is_no_change(line: str) -> None:
    with pytest.raises(Invalid):
        apply_changes(RunConfig(), [line])
