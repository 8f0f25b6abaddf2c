"""bin/proa finds its interpreter and its package wherever pip may have put the two."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import proa

ROOT = Path(__file__).parents[3]
LAUNCHER = ROOT / "bin" / "proa"
PACKAGE = Path(proa.__file__).parent
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
EXPECTED = f"proa version {proa.__version__}\n"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment made by hand, without the package."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / f"venv/lib/{VERSION}/site-packages").mkdir(parents=True)
    (tmp_path / "venv/bin/python3").symlink_to(os.path.realpath(sys.executable))
    home = Path(os.path.realpath(sys.executable)).parent
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    shutil.copy(LAUNCHER, tmp_path / "venv/bin/proa")
    return tmp_path / "venv"


def site(venv: Path) -> Path:
    return venv / "lib" / VERSION / "site-packages"


def version_of(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, env=env, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package(venv: Path) -> None:
    (site(venv) / "proa").symlink_to(PACKAGE)
    assert version_of(venv / "bin/proa") == EXPECTED
    assert version_of("/bin/sh", "-c", 'PATH=bin:$PATH; exec proa "$@"', "sh", cwd=venv) == EXPECTED


def test_through_symbolic_links(venv: Path, tmp_path: Path) -> None:
    (site(venv) / "proa").symlink_to(PACKAGE)
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/first").symlink_to("../venv/bin/proa")
    (tmp_path / "usr/second").symlink_to(tmp_path / "usr/first")
    (tmp_path / "usr/python3").write_text("#!/bin/sh\necho wrong interpreter\n")
    (tmp_path / "usr/python3").chmod(0o755)
    assert version_of(tmp_path / "usr/second") == EXPECTED


def test_an_editable_install_by_path_file(venv: Path) -> None:
    (site(venv) / "__editable__.proa-0.1.0.pth").write_text(f"{PACKAGE.parent}\n")
    assert version_of(venv / "bin/proa") == EXPECTED


def test_an_editable_install_by_any_other_path_file(venv: Path) -> None:
    """site does what the launcher does not know."""
    (site(venv) / "somewhere.pth").write_text(f"import sys; sys.path.append({str(PACKAGE.parent)!r})\n")
    assert version_of(venv / "bin/proa") == EXPECTED


def test_a_users_own_install(tmp_path: Path) -> None:
    """~/.local/bin/proa has no interpreter next to it; the package's place says which one it was installed for."""
    (tmp_path / "local/bin").mkdir(parents=True)
    site_packages = tmp_path / f"local/lib/{VERSION}/site-packages"
    site_packages.mkdir(parents=True)
    (site_packages / "proa").symlink_to(PACKAGE)
    shutil.copy(LAUNCHER, tmp_path / "local/bin/proa")
    (tmp_path / "path").mkdir()
    (tmp_path / f"path/{VERSION}").symlink_to(sys.executable)
    env = {"PATH": f"{tmp_path}/path:/usr/bin:/bin"}
    assert version_of(tmp_path / "local/bin/proa", env=env) == EXPECTED


def test_the_source_tree() -> None:
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    assert version_of(LAUNCHER, env=env) == EXPECTED
    assert version_of("bin/proa", env=env, cwd=ROOT) == EXPECTED


def test_arguments_arrive_as_they_are(venv: Path) -> None:
    (site(venv) / "proa").mkdir()
    (site(venv) / "proa/__init__.py").touch()
    (site(venv) / "proa/cli.py").write_text("import sys\ndef main(): print(sys.argv[1:], sys.flags.isolated)\n")
    done = subprocess.run(
        [venv / "bin/proa", "a b", "", "*", "$HOME", "-c"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['a b', '', '*', '$HOME', '-c'] 1\n"


def test_the_installed_launcher_is_the_one_of_the_tree() -> None:
    assert Path(sys.executable).with_name("proa").read_bytes() == LAUNCHER.read_bytes()
