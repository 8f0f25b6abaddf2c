"""The rules of the code base, asserted: linters, types, imports, sizes, names, and documents that must stay true."""

from __future__ import annotations

import ast
import importlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "proa"
MODULES = sorted(SOURCE.rglob("*.py"))
PACKAGES = sorted(p.parent.name for p in SOURCE.glob("*/__init__.py"))


def _tool(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_ruff_finds_nothing() -> None:
    _tool("ruff", "check", "src", "tests", "benchmarks")


def test_everything_is_formatted() -> None:
    _tool("ruff", "format", "--check", "src", "tests", "benchmarks")


def test_types_are_strict() -> None:
    _tool("mypy")


def test_imports_point_down() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]


def test_modules_are_small() -> None:
    lines = {m: len(m.read_text().splitlines()) for m in MODULES}
    assert max(lines.values()) <= 600, [str(m) for m, n in lines.items() if n > 600]
    assert statistics.median(n for m, n in lines.items() if m.name != "__init__.py") <= 160


def _classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ClassDef):
                yield module, node


def test_interfaces_have_ten_methods_or_fewer() -> None:
    for module, node in _classes():
        if any(isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases):
            methods = [m.name for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
            assert len(methods) <= 10, f"{module}: {node.name} has {len(methods)} methods"


def test_no_vague_module_names() -> None:
    vague = {"util", "utils", "helper", "helpers", "manager", "common", "base", "misc", "data", "info"}
    assert not [m for m in MODULES if m.stem in vague]


def test_each_package_says_its_responsibility_in_one_sentence() -> None:
    for package in PACKAGES:
        first = (importlib.import_module(f"proa.{package}").__doc__ or "").splitlines()[0]
        assert first.endswith("."), package
        assert len(first) <= 120, package


def test_the_architecture_page_lists_the_packages_as_they_are() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    rows = dict(re.findall(r"^\| `proa\.(\w+)` \| (.+?) \|$", page, re.MULTILINE))
    assert sorted(rows) == PACKAGES
    for package, sentence in rows.items():
        assert importlib.import_module(f"proa.{package}").__doc__.splitlines()[0] == sentence  # type: ignore[union-attr]


BANNED = {
    # Each of these follows links, crosses mounts, searches PATH, or trusts an archive.
    "storage": ("shutil.rmtree", "os.path.realpath", ".extractall(", "tempfile.mktemp", "shell=True", "os.system"),
    "runtime": (
        "shutil.",
        "os.path.realpath",
        "subprocess",
        "os.system",
        "os.execvp",
        "tempfile",
        "import pwd",
        "import grp",
    ),
    "monitor": (
        "shutil.",
        "os.path.realpath",
        "os.system",
        "os.execvp",
        "tempfile",
        "import pwd",
        "import grp",
        "threading.Thread(",
    ),
    "network": ("shutil.rmtree", "os.system", "shell=True"),
    "engine": ("shutil.rmtree", "os.system", "shell=True", ".extractall(", "pickle"),
    "transfer": ("shutil.rmtree", "os.system", "shell=True", ".extractall(", "pickle"),
}


@pytest.mark.parametrize("package", sorted(BANNED))
def test_dangerous_calls_are_absent(package: str) -> None:
    for module in sorted((SOURCE / package).rglob("*.py")):
        if package == "monitor" and module.name in ("nursery.py", "sealed.py"):
            continue  # the engine's side, which does start a process
        text = module.read_text()
        assert not [word for word in BANNED[package] if word in text], module


def test_only_single_threaded_processes_fork() -> None:
    for module in MODULES:
        if "os.fork()" in module.read_text():
            # rootless: before the engine has any thread, which it checks.
            allowed = ("monitor", "layers", "runtime", "cli", "client")
            assert module.parent.name in allowed or module.name == "rootless.py", module


def test_the_readme_names_the_command_that_ci_runs() -> None:
    assert "bash scripts/test" in (ROOT / "README.md").read_text()
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_nothing_says_it_is_unfinished() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
    for module in [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]:
        assert not [w for w in words if re.search(rf"\b{w}\b", module.read_text())], module
