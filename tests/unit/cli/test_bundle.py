"""The code file from which common commands start."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import proa
from proa.cli import bundle

SOURCE = Path(proa.__file__).parents[1]
LAUNCHER = Path(__file__).parents[3] / "bin/proa"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the command and its package beside it, as a clone has them; returns the command."""
    for package in ("cli", "client"):
        shutil.copytree(
            SOURCE / "proa" / package, tmp_path / "src/proa" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for module in ("__init__", "_version", "errors"):
        shutil.copy(SOURCE / f"proa/{module}.py", tmp_path / f"src/proa/{module}.py")
    (tmp_path / "bin").mkdir()
    command = shutil.copy(LAUNCHER, tmp_path / "bin/proa")
    (tmp_path / "bin/python3").symlink_to(os.path.realpath(sys.executable))
    return Path(command)


def run(command: Path, *arguments: str, verbose: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command; verbose: with the interpreter's own account of imports on stderr."""
    argv = [str(command), *arguments]
    if verbose:
        argv = [str(command.with_name("python3")), "-I", "-S", "-v", str(_python_part(command)), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=command.parent)


def _python_part(command: Path) -> Path:
    part = command.with_name("proa.py")
    part.write_text("import sys" + command.read_text().partition("\nimport sys")[2])
    return part


def written(command: Path) -> Path:
    return Path(bundle.path_of(str(command.parents[1] / "src")))


def test_a_command_writes_it_and_the_next_one_imports_from_it(installed: Path) -> None:
    assert run(installed, "--version").stdout == f"proa version {proa.__version__}\n"
    # Wherever this interpreter finds itself, the copy is what the command runs.
    assert written(installed).exists()
    done = run(installed, "ps", "--help", verbose=True)
    assert done.returncode == 0
    assert "Usage:  proa ps" in done.stdout
    assert "cli/commands/__pycache__/ps." not in done.stderr
    assert "cli/commands/ps.py" not in done.stderr


@pytest.mark.parametrize("command", sorted(bundle.COMMANDS))
def test_it_holds_all_that_a_command_needs_in_order(installed: Path, command: str) -> None:
    run(installed, "--version")
    missing = {**os.environ, "PROA_HOST": f"unix://{installed.parent}/nobody"}
    code = (
        f"import sys, marshal, posix; sys.path.append({str(SOURCE)!r}); sys.argv[:] = ['proa', {command!r}, 'a', 'b']\n"
        f"file = posix.open({bundle.path_of(str(installed.parents[1] / 'src'))!r}, 0)\n"
        "*_, code, modules = marshal.loads(posix.pread(file, 16384, 0))\n"
        "own = sys.modules['proa.cli.bundle'] = type(sys)('proa.cli.bundle')\n"
        "exec(code, own.__dict__)\n"
        "assert own.install(file, modules, sys.argv[1])\n"
        "before = {m for m in sys.modules if m.startswith('proa')}\n"
        "assert {'proa', *own.FIRST, *own.COMMANDS[sys.argv[1]]} - {'__future__'} <= before, before\n"
        "from proa.cli import dispatch\n"
        "dispatch(sys.argv[1:])\n"
        "late = {m for m in sys.modules if m.startswith('proa')} - before\n"
        "sys.stderr.write('\\n@' + ' '.join(late - set(own.MODULES)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, env=missing
    )
    assert done.stderr.rpartition("\n@")[2] == "", "imported, but not in the bundle"


def test_a_changed_module_is_imported_as_it_is_now_and_the_bundle_renewed(installed: Path) -> None:
    run(installed, "--version")
    before = written(installed).read_bytes()
    version = installed.parents[1] / "src/proa/_version.py"
    version.write_text('__version__ = "9.9.9"\n')
    assert run(installed, "--version").stdout == "proa version 9.9.9\n"
    assert written(installed).read_bytes() != before
    assert run(installed, "--version").stdout == "proa version 9.9.9\n"


def test_a_bundle_of_another_proa_is_left_aside(installed: Path) -> None:
    run(installed, "--version")
    source = installed.parents[1] / "src/proa/cli/bundle.py"
    source.write_text(source.read_text() + "\n\nNEW = True\n")
    assert run(installed, "--version").stdout == f"proa version {proa.__version__}\n"
    index = marshal.loads(written(installed).read_bytes())
    assert "NEW" in index[2].co_names


@pytest.mark.parametrize("contents", [b"", b"\0" * 20000, marshal.dumps((99, 0, None, {})), marshal.dumps((1, 2))])
def test_a_broken_bundle_is_left_aside_and_replaced(installed: Path, contents: bytes) -> None:
    run(installed, "--version")
    written(installed).write_bytes(contents)
    done = run(installed, "--version")
    assert (done.stdout, done.stderr) == (f"proa version {proa.__version__}\n", "")
    assert len(written(installed).read_bytes()) > bundle.INDEX_BYTES


def test_nothing_is_left_where_it_cannot_be_written(installed: Path) -> None:
    cache = written(installed).parent
    cache.mkdir()
    written(installed).mkdir()  # in the way of the rename
    assert run(installed, "--version").stdout == f"proa version {proa.__version__}\n"
    assert not [p for p in cache.iterdir() if p.name.startswith("bundle.") and p.suffix[1:].isdigit()]


def test_the_launcher_agrees_on_the_form() -> None:
    launcher = LAUNCHER.read_text()
    assert f"pread(file, {bundle.INDEX_BYTES}, 0)" in launcher
    assert f"(form, version) == ({bundle.FORMAT}, sys.hexversion)" in launcher
