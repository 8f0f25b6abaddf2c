from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.engine.merge import DEFAULT_PATH, merge_config, merge_env
from proa.engine.types import ContainerConfig
from proa.errors import Invalid
from proa.oci import Healthcheck, RunConfig


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "image_entrypoint", "image_cmd", "expected"),
    [
        (None, None, None, ["sh"], (None, ["sh"])),
        (None, ["ls"], None, ["sh"], (None, ["ls"])),
        (None, None, ["run"], ["all"], (["run"], ["all"])),
        (None, ["one"], ["run"], ["all"], (["run"], ["one"])),
        (None, [], ["run"], ["all"], (["run"], ["all"])),
        (["mine"], None, ["run"], ["all"], (["mine"], None)),  # the image's command was for the image's entrypoint
        (["mine"], ["x"], ["run"], ["all"], (["mine"], ["x"])),
        ([""], ["sh"], ["run"], ["all"], (None, ["sh"])),
        ([], ["sh"], ["run"], None, ([], ["sh"])),
    ],
)
def test_entrypoint_and_command(
    entrypoint: Any, cmd: Any, image_entrypoint: Any, image_cmd: Any, expected: Any
) -> None:
    merged = merge_config(
        ContainerConfig(entrypoint=entrypoint, cmd=cmd), RunConfig(entrypoint=image_entrypoint, cmd=image_cmd)
    )
    assert (merged.entrypoint, merged.cmd) == expected


@pytest.mark.parametrize("wanted", [ContainerConfig(), ContainerConfig(entrypoint=[""]), ContainerConfig(cmd=[])])
def test_nothing_to_run(wanted: ContainerConfig) -> None:
    with pytest.raises(Invalid, match="no command specified"):
        merge_config(wanted, RunConfig())


def test_the_image_gives_what_the_user_does_not() -> None:
    image = RunConfig(
        user="web",
        working_dir="/srv",
        env=["PATH=/bin", "A=image", "broken", "=x"],
        cmd=["x"],
        labels={"a": "image", "b": "image"},
        exposed_ports={"80/tcp": {}},
        volumes={"/data": {}},
        stop_signal="SIGINT",
        healthcheck=Healthcheck(test=["CMD", "true"]),
    )
    merged = merge_config(ContainerConfig(), image)
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("web", "/srv", "SIGINT")
    assert merged.env == ["PATH=/bin", "A=image"]
    assert merged.healthcheck == image.healthcheck
    wanted = ContainerConfig(
        user="0", working_dir="/", env=["A=mine", "B=x=y"], labels={"a": "mine"}, exposed_ports={"90/udp": {}},
        stop_signal="TERM",
    )  # fmt: skip
    merged = merge_config(wanted, image)
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("0", "/", "TERM")
    assert merged.env == ["PATH=/bin", "A=mine", "B=x=y"]
    assert merged.labels == {"a": "mine", "b": "image"}
    assert set(merged.exposed_ports or {}) == {"80/tcp", "90/udp"}
    assert wanted.env == ["A=mine", "B=x=y"]
    assert image.env == ["PATH=/bin", "A=image", "broken", "=x"]


def test_there_is_always_a_path() -> None:
    assert merge_config(ContainerConfig(cmd=["x"]), RunConfig()).env == [DEFAULT_PATH]
    assert merge_config(ContainerConfig(cmd=["x"], env=["PATH=/x"]), RunConfig()).env == ["PATH=/x"]
    assert merge_config(ContainerConfig(cmd=["x"], env=["PATH"]), RunConfig(env=["PATH=/y"])).env == [DEFAULT_PATH]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"env": ["A=b\0c"]}, "NUL"),
        ({"env": ["=x"]}, "invalid environment variable"),
        ({"env": [""]}, "invalid environment variable"),
        ({"cmd": ["a\0"]}, "NUL"),
        ({"entrypoint": ["\0"]}, "NUL"),
        ({"working_dir": "srv"}, "absolute path"),
        ({"hostname": "a b"}, "hostname"),
        ({"hostname": "a/b"}, "hostname"),
        ({"hostname": "h" * 65}, "hostname"),
        ({"hostname": "a\nb"}, "hostname"),
        ({"domainname": "a:b"}, "domainname"),
        ({"stop_signal": "SIGNOPE"}, "Invalid signal"),
    ],
)
def test_what_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(Invalid, match=text):
        merge_config(ContainerConfig(**{"cmd": ["x"], **change}), RunConfig())


NAMES = st.sampled_from(["A", "B", "C", "D"])
ENTRIES = st.lists(st.tuples(NAMES, st.text(alphabet="xy=", max_size=3)), max_size=8)


@given(ENTRIES, ENTRIES, st.lists(NAMES, max_size=3))
def test_environments_merge_like_assignments(base: Any, extra: Any, removed: list[str]) -> None:
    merged = merge_env([f"{k}={v}" for k, v in base], [*(f"{k}={v}" for k, v in extra), *removed])
    expected = {**dict(base), **dict(extra)}
    assert dict(entry.split("=", 1) for entry in merged) == {k: v for k, v in expected.items() if k not in removed}
    assert len({entry.partition("=")[0] for entry in merged}) == len(merged)
