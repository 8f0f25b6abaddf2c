"""A store prepared for faults, operations to interrupt on copies of it, and what must hold after each interruption."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import store_walk
from oci_images import Image, tar
from registries import BlobServer, Registry

DRIVER = Path(__file__).with_name("fault_driver.py")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

LOWEST = tar(
    ("bin", None),
    ("bin/sh", b"#!shell" * 300),
    ("etc", None),
    ("etc/name", b"lowest"),
    ("etc/link", "name"),
    ("d", None),
    ("d/gone", b"x"),
)
MIDDLE = tar(("etc/name", b"middle"), ("d/.wh.gone", b""), ("d/new", b"new" * 5000), ("home", None))
UPPER = tar(("etc/.wh..wh..opq", b""), ("etc/only", b"only"), ("big", os.urandom(40_000)))
OTHER = tar(("other", b"other"), ("large", os.urandom(1_200_000)))

Operation = list[Any]


class Driver:
    """The process of fault_driver.py."""

    def __init__(self, directory: Path) -> None:
        self._run = directory / "run"
        self._log = (directory / "driver.log").open("wb")
        self.log = directory / "driver.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PROA_", "DOCKER_"))}
        environment["PROA_CONFIG"] = str(directory / "none.toml")
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, root: Path, *operations: Operation, **fault: Any) -> Any:
        """Do `operations` on an engine of `root`; what was said, and whether it was killed or stopped.

        fault: mode, at, sticky (see Steps), worker; close=True ends the engine properly all the same.
        """
        close = fault.pop("close", not fault)
        return self._send({"root": str(root), "run": str(self._run), "do": operations, "fault": fault, "close": close})

    def kill_stopped(self) -> None:
        """End the process that the last request left stopped."""
        self._send({"kill": True})

    def _send(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log.read_text()
        answer = json.loads(line)
        for said in answer.get("said", ()):
            assert "crashed" not in said, said["crashed"]
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


def points(steps: int, sample: int) -> list[int]:
    """Which of the steps are struck: all of them when PROA_FAULT_POINTS is `all`, else so many, evenly spread."""
    wanted = os.environ.get("PROA_FAULT_POINTS", str(sample))
    count = steps if wanted == "all" else min(steps, int(wanted))
    return sorted({1 + i * (steps - 1) // max(1, count - 1) for i in range(count)})


def acknowledged(answer: Any) -> list[str]:
    """The operations that came back with success."""
    return [said["done"] for said in answer["said"] if "done" in said]


def failures(answer: Any) -> list[Any]:
    """What operations said that failed."""
    return [said for said in answer["said"] if "failed" in said]


def walks(answer: Any) -> list[Any]:
    """What was seen of the store, in order."""
    return [said["walk"] for said in answer["said"] if "walk" in said]


class FaultBench:
    """A template root with images and a container; copies of it to break. `operations` are what can be interrupted."""

    def __init__(self, directory: Path, registry: Registry | None = None) -> None:
        self.directory = directory
        self.driver = Driver(directory)
        self.template = directory / "template"
        self.disk = directory / "template.img"
        pulled = Image(LOWEST, MIDDLE, UPPER)
        self.server = BlobServer(pulled.blobs, pulled.digest, MANIFEST)
        (directory / "base.tar").write_bytes(Image(LOWEST, MIDDLE, how="none").archive("docker.io/tests/base:1"))
        (directory / "other.tar").write_bytes(Image(OTHER, UPPER, how="zstd").archive("docker.io/tests/other:1"))
        (directory / "new.tar").write_bytes(Image(OTHER[:-1024] + UPPER, MIDDLE).archive("docker.io/tests/new:1"))
        (directory / "tree.tar").write_bytes(OTHER)
        (directory / "lowest.tar").write_bytes(LOWEST)
        self.operations: dict[str, list[Operation]] = {
            "pull": [["pull", self.server.reference]],
            "load": [["load", str(directory / "new.tar")]],
            "import": [["import_tar", str(directory / "tree.tar"), "tests/imported:1"]],
            "commit": [["commit", "kept", "tests/committed"]],
            "create": [["create", "tests/base:1", "second", {"file": "second"}]],
            "rmi": [["rmi", "tests/other:1"]],
            "prune": [["prune"]],
            "copy-up": [["create", "tests/base:1", "filled", {}, "seeded:/etc"]],
            "volume-import": [["volume_import", "fresh", str(directory / "tree.tar")]],
            "volume-replace": [["volume_import", "data", str(directory / "tree.tar")]],
            "volume-clone": [["volume_clone", "data", "twin"]],
            "volume-remove": [["volume_remove", "data"]],
            "gc": [["untag", "docker.io/tests/other:1"], ["collect"]],
        }
        ready = self.driver.ask(
            self.template,
            ["load", str(directory / "base.tar")],
            ["load", str(directory / "other.tar")],
            ["create", "tests/base:1", "kept", {"file": "kept", "etc/name": "changed"}],
            ["volume_import", "data", str(directory / "lowest.tar")],
        )
        assert acknowledged(ready) == ["load", "load", "create", "volume_import"], ready
        if registry is not None:
            # The plain layers of an import are compressed by the first push, which gives the image another manifest.
            name = f"{registry.host}/tests/fault:1"
            ready = self.driver.ask(self.template, ["import_tar", str(directory / "tree.tar"), name])
            assert acknowledged(ready) == ["import_tar"], ready
            self.operations["push"] = [["push", name]]
        self._references: dict[str, tuple[Any, Any, set[str]]] = {}

    @contextmanager
    def copy(self, name: str = "root") -> Iterator[Path]:
        """A root to break."""
        root = self.directory / name
        subprocess.run(["cp", "-a", str(self.template), str(root)], check=True)
        try:
            yield root
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)

    def reference(self, name: str) -> tuple[Any, Any, set[str], int]:
        """What is visible before and after an operation that nothing interrupts, the files then, and its steps."""
        if name not in self._references:
            with self.copy("reference") as root:
                answer = self.driver.ask(root, ["walk"], *self.operations[name], ["walk"], ["collect"])
                before, after = walks(answer)
                assert not failures(answer), answer
                assert before["problems"] == after["problems"] == []
                steps = max(said.get("steps", 0) for said in answer["said"][:-2])
                self._references[name] = (before, after, store_walk.shape(root), steps)
        return self._references[name]

    def verify(self, name: str, root: Path, interrupted: Any, *, also: str = "") -> None:
        """Assert all that must hold on `root` after `interrupted`, by doing the operation again on another engine."""
        before, after, files, _ = self.reference(name)
        operations = self.operations[name]
        complete = acknowledged(interrupted)[: len(operations)] == [o[0] for o in operations]
        answer = self.driver.ask(root, ["walk"], *operations, ["walk"], ["collect"])
        found, again = walks(answer)
        told = f"{name} {also}: {interrupted}"
        assert not failures(answer), (told, failures(answer))
        check_visible(found, before, after, complete, told)
        check_visible(again, after, after, True, told)
        left = store_walk.shape(root)
        assert left == files, (told, "left:", sorted(left - files), "missing:", sorted(files - left))

    def close(self) -> None:
        """End the driver and the registry."""
        self.driver.close()
        self.server.close()


def check_visible(found: Any, before: Any, after: Any, complete: bool, told: str) -> None:
    """`found` is whole, has all that was there before and stays, and shows the operation's result if `complete`.

    A new image's digests differ from run to run where its creation time is part of it; its files do not.
    """
    assert found["problems"] == [], (told, found["problems"])
    for name in {*found["names"], *before["names"], *after["names"]}:
        there = name in found["names"]
        allowed = {name in after["names"]} if complete else {name in before["names"], name in after["names"]}
        assert there in allowed, (told, name, found["names"])
        if name in before["names"] and there and name in after["names"]:
            wanted = {after["names"][name]} if complete else {before["names"][name], after["names"][name]}
            assert found["names"][name] in wanted, (told, name)
    trees = {*before["trees"].values(), *after["trees"].values()}
    assert set(found["trees"].values()) <= trees, told
    if complete:
        assert sorted(found["trees"].values()) == sorted(after["trees"].values()), told
    _check_volumes(found["volumes"], before["volumes"], after["volumes"], complete, told)
    for name, content in {**before["containers"], **after["containers"], **found["containers"]}.items():
        if name in found["containers"]:
            # A container's files are its own to sync: only those that were there before count.
            if name in before["containers"]:
                assert found["containers"][name] == content, (told, name)
        else:
            assert name not in before["containers"] and not complete, (told, name)  # noqa: PT018


EMPTY = hashlib.sha256(bytes(1024)).hexdigest()  # an archive's end


def _check_volumes(found: Any, before: Any, after: Any, complete: bool, told: str) -> None:
    """A volume has its old contents or its new ones; one that a container brings may be there and empty before it."""
    if complete:
        assert found == after, told
    for name in {*found, *before, *after}:
        allowed = {before.get(name), after.get(name)}
        if name not in before:
            allowed |= {None, EMPTY}
        assert found.get(name) in allowed, (told, name)
