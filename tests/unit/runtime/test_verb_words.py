"""What callers write: options, signals, sizes, documents; and what the short verbs may import."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid, NotFound
from proa.runtime.verbs import documents
from proa.runtime.verbs.events import duration_ms
from proa.runtime.verbs.kill import OPTIONS as KILL_OPTIONS
from proa.runtime.verbs.kill import signal_number
from proa.runtime.verbs.options import parse, take_globals
from proa.runtime.verbs.preparing import prepare
from proa.runtime.verbs.records import check_id

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_documents_are_json(value: object) -> None:
    assert json.loads(documents.encode(value)) == value
    assert documents.decode(" \n" + json.dumps(value) + "\t", "it") == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{} x", '{"a":1,"a":2}', "NaN", "'a'", "[" * 100_000, '"\x01"'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="it"):
        documents.decode(text, "it")


def test_documents_of_files(tmp_path: Path) -> None:
    path = str(tmp_path / "d")
    documents.write_document(path, {"a": ["é"]})
    assert documents.read_document(path) == {"a": ["é"]}
    with pytest.raises(NotFound):
        documents.read_document(path + "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_options_as_go_programs_write_them() -> None:
    given_, rest = parse(KILL_OPTIONS, ["--all", "id", "9"])
    assert (given_.flag("all"), rest) == (True, ["id", "9"])
    for words in (["-a", "id"], ["--all=true", "id"], ["-all", "id"], ["id", "-a"]):
        assert parse(KILL_OPTIONS, words)[0].flag("all"), words
    assert parse(KILL_OPTIONS, ["--all=false", "id", "-9"])[1] == ["id", "-9"]
    settings, _, rest = take_globals(["--root=/r", "--log", "l", "--log-format=json", "state", "--x"], "/default")
    assert (settings.root, settings.log, settings.log_format, rest) == ("/r", "l", "json", ["state", "--x"])
    assert take_globals(["--systemd-cgroup", "state"], "/")[0].cgroup_manager == "systemd"
    for bad in (["--what"], ["--all=maybe"]):
        with pytest.raises(Invalid):
            parse(KILL_OPTIONS, bad)
    for bad in (["--root"], ["--log-format", "xml"]):
        with pytest.raises(Invalid):
            take_globals(bad, "/")


def test_signals() -> None:
    for text in ("9", "KILL", "SIGKILL", "kill"):
        assert signal_number(text) == signal.SIGKILL
    assert signal_number("SIGRTMIN+3") == signal.SIGRTMIN + 3
    assert signal_number("RTMAX-1") == signal.SIGRTMAX - 1
    for bad in ("", "65", "-1", "SIG_DFL", "SIG", "NOPE", "٩", "SIGRTMIN+99", "1_0"):
        with pytest.raises(Invalid):
            signal_number(bad)


def test_durations() -> None:
    assert [duration_ms(text) for text in ("5s", "500ms", "2m")] == [5000, 500, 120_000]
    for bad in ("", "5", "s", "0s", "-1s", "5d"):
        with pytest.raises(Invalid):
            duration_ms(bad)


def test_ids() -> None:
    assert check_id("a_B-1.c+") == "a_B-1.c+"
    for bad in ("", ".", "..", "a/b", "a b", "é", "x" * 256, "a\n"):
        with pytest.raises(Invalid):
            check_id(bad)


def test_a_config_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    told: list[str] = []
    config = prepare(
        {
            "ociVersion": "1.0.2-dev",
            "root": {"path": "rootfs"},
            "annotations": {"proa.seccomp": "unconfined", "a": "b"},
            "process": {
                "args": ["x"],
                "user": {"uid": 1, "username": "root"},
                "capabilities": {"permitted": ["CAP_KILL", "CAP_MAGIC"], "effective": ["CAP_KILL", "CAP_CHOWN"]},
            },
            "mounts": [{"destination": "/a//b/", "source": "data", "options": ["bind", "size=5"]}],
        },
        str(tmp_path),
        told.append,
    )
    assert config["root"]["path"] == str(tmp_path / "rootfs")
    assert config["annotations"] == {"a": "b"}
    assert config["process"]["user"] == {"uid": 1}
    assert config["process"]["capabilities"] == {"permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}
    assert config["mounts"] == [
        {"destination": "/a/b", "source": str(tmp_path / "data"), "options": ["bind"], "type": "bind"}
    ]
    assert [word for word in ("CAP_MAGIC", "CAP_CHOWN", "size=5") if not any(word in text for text in told)] == []


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "create", "exec", "run"])
def test_verbs_import_little(verb: str) -> None:
    code = (
        f"import sys; before = set(sys.modules); sys.path[:0] = {sys.path!r}; "
        f"import proa.runtime.verbs.{verb}; print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"typing", "re", "enum", "json", "ctypes", "msgspec", "socket", "contextlib", "collections", "signal"}
    heavy |= {"functools", "array", "dataclasses", "proa.runtime.seccomp"}
    if verb in ("state", "start", "kill", "delete"):
        heavy |= {"os", "_ctypes", "proa.runtime.cgroups"}
    assert heavy & set(done.stdout.split()) == set()
