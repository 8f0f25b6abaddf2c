"""The code files from which common commands of both programs start."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import proa
from proa import bundle
from proa.cli import modules as cli_modules
from proa.runtime.verbs import modules as runtime_modules

SOURCE = Path(proa.__file__).parents[1]
LAUNCHER = Path(__file__).parents[2] / "bin/proa"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the command and its package beside it, as a clone has them; returns the command."""
    for package in ("cli", "client", "linux", "runtime"):
        shutil.copytree(
            SOURCE / "proa" / package, tmp_path / "src/proa" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for module in ("__init__", "_version", "bundle", "errors"):
        shutil.copy(SOURCE / f"proa/{module}.py", tmp_path / f"src/proa/{module}.py")
    (tmp_path / "bin").mkdir()
    command = shutil.copy(LAUNCHER, tmp_path / "bin/proa")
    shutil.copy(LAUNCHER.with_name("proa-runtime"), tmp_path / "bin/proa-runtime")
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


def written(command: Path, package: str = "proa.cli") -> Path:
    return Path(bundle.path_of(str(command.parents[1] / "src"), package))


def test_a_command_writes_it_and_the_next_one_imports_from_it(installed: Path) -> None:
    assert run(installed, "--version").stdout == f"proa version {proa.__version__}\n"
    # Wherever this interpreter finds itself, the copy is what the command runs.
    assert written(installed).exists()
    done = run(installed, "ps", "--help", verbose=True)
    assert done.returncode == 0
    assert "Usage:  proa ps" in done.stdout
    assert "cli/commands/__pycache__/ps." not in done.stderr
    assert "cli/commands/ps.py" not in done.stderr


def loaded(command: Path, package: str, words: list[str], call: str) -> tuple[set[str], set[str]]:
    """The modules of proa there are once the bundle is installed for a command line, and those that `call` adds."""
    code = (
        f"import sys, marshal; sys.path.append({str(SOURCE)!r}); sys.argv[:] = ['proa', *{words!r}]\n"
        f"path = {str(written(command, package))!r}\n"
        f"contents = open(path, 'rb').read({bundle.FIRST_BYTES})\n"
        "_, _, code, *index = marshal.loads(contents)\n"
        "own = sys.modules['proa.bundle'] = type(sys)('proa.bundle')\n"
        "exec(code, own.__dict__)\n"
        "assert own.install(path, contents, *index, sys.argv[1:])\n"
        "before = {m for m in sys.modules if m.startswith('proa')}\n"
        f"{call}\n"
        "late = {m for m in sys.modules if m.startswith('proa')} - before\n"
        "assert not own.stale\n"
        "sys.stderr.write('\\n@' + ' '.join(before) + '@' + ' '.join(late))\n"
    )
    missing = {**os.environ, "PROA_HOST": f"unix://{command.parent}/nobody"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, env=missing
    )
    before, late = done.stderr.rpartition("\n@")[2].split("@")
    return set(before.split()), set(late.split())


@pytest.mark.parametrize("command", sorted(cli_modules.COMMANDS))
def test_it_holds_all_that_a_command_needs_in_order(installed: Path, command: str) -> None:
    run(installed, "--version")
    call = "from proa.cli import dispatch; dispatch(sys.argv[1:])"
    before, late = loaded(installed, "proa.cli", [command, "a", "b"] if command else ["--version"], call)
    wanted = {name for name in cli_modules.COMMANDS[command] if name.startswith("proa")}
    assert wanted <= before
    assert late <= {*cli_modules.MODULES, "proa.bundle"}, "imported, but not in the bundle"


@pytest.mark.parametrize("command", sorted(runtime_modules.COMMANDS))
def test_the_runtime_has_its_own(installed: Path, command: str, tmp_path: Path) -> None:
    root = ["--root", str(tmp_path / "containers")]
    assert run(installed.with_name("proa-runtime"), *root, "list").returncode == 0
    words = [command, "--bundle", str(tmp_path), "nobody"] if command == "--oci-runtime-sealed" else [command, "nobody"]
    call = "import proa.runtime.verbs as v; v.dispatch([w for w in sys.argv[1:] if w[:5] != '--oci' and w])"
    if command == "--oci-runtime-sealed":
        words, call = [command], "from proa.runtime.verbs import create, exec, run; from proa.runtime import cgroups"
        call += "; cgroups.create; from proa.runtime.verbs import notify; from proa.runtime import seccomp"
    elif command in ("create", "run", "exec"):  # only up to where they go on in the sealed interpreter
        call = "from proa.linux import memory_files; from proa.runtime import verbs"
    before, late = loaded(installed, "proa.runtime.verbs", words, call)
    wanted = {name for name in runtime_modules.COMMANDS[command] if name.startswith("proa")}
    assert wanted <= before
    assert late <= set(runtime_modules.MODULES), "imported, but not in the bundle"


def test_what_is_frequent_is_in_the_part_that_is_always_read(installed: Path) -> None:
    run(installed.with_name("proa-runtime"), "--root", str(installed.parent / "none"), "list")
    run(installed, "--version")
    short = [verb for verb in runtime_modules.COMMANDS if verb != "--oci-runtime-sealed"]
    for package, frequent in (("proa.cli", ["exec"]), ("proa.runtime.verbs", short)):
        *_, size, commands, modules = marshal.loads(written(installed, package).read_bytes())
        first = {name for command in frequent for name in commands[command]}
        assert size + max(modules[name][4] for name in first) <= bundle.FIRST_BYTES


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
    source = installed.parents[1] / "src/proa/bundle.py"
    source.write_text(source.read_text() + "\n\nNEW = True\n")
    assert run(installed, "--version").stdout == f"proa version {proa.__version__}\n"
    index = marshal.loads(written(installed).read_bytes())
    assert "NEW" in index[2].co_names


def test_a_bundle_that_was_copied_with_its_package_is_left_aside(installed: Path, tmp_path: Path) -> None:
    run(installed, "--version")
    copy = tmp_path / "copy"
    for part in ("src", "bin"):
        shutil.copytree(installed.parents[1] / part, copy / part, symlinks=True)
    done = run(copy / "bin/proa", "ps", "--help", verbose=True)
    assert f"{copy}/bin/../src/proa/cli/commands/ps.py" in done.stderr
    again = run(copy / "bin/proa", "ps", "--help", verbose=True)
    assert "commands/ps.py" not in again.stderr, "the bundle was not written anew"


@pytest.mark.parametrize("contents", [b"", b"\0" * 20000, marshal.dumps((99, 0, None, {})), marshal.dumps((1, 2))])
def test_a_broken_bundle_is_left_aside_and_replaced(installed: Path, contents: bytes) -> None:
    run(installed, "--version")
    written(installed).write_bytes(contents)
    done = run(installed, "--version")
    assert (done.stdout, done.stderr) == (f"proa version {proa.__version__}\n", "")
    assert marshal.loads(written(installed).read_bytes())[0] == bundle.FORMAT


def test_nothing_is_left_where_it_cannot_be_written(installed: Path) -> None:
    cache = written(installed).parent
    cache.mkdir()
    written(installed).mkdir()  # in the way of the rename
    assert run(installed, "--version").stdout == f"proa version {proa.__version__}\n"
    assert not [p for p in cache.iterdir() if p.name.startswith("bundle.") and p.suffix[1:].isdigit()]


def test_the_launcher_agrees_on_the_form() -> None:
    launcher = LAUNCHER.read_text()
    assert f"file.read({bundle.FIRST_BYTES})" in launcher
    assert f"(form, version) != ({bundle.FORMAT}, sys.hexversion)" in launcher
