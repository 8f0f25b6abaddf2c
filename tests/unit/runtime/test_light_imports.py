"""What importing costs, and what is on offer."""

import subprocess
import sys

import proa.runtime


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
                              capture_output=True, text=True, check=True).stdout.split())  # fmt: skip


def test_defaults_are_light() -> None:
    loaded = modules_after("from proa.runtime import defaults")
    assert not {"ctypes", "msgspec", "socket", "proa.linux", "proa.runtime.plan"} & loaded


def test_launching_needs_no_heavy_module() -> None:
    loaded = modules_after("from proa.runtime.launching import preload; preload()")
    # msgspec brings `inspect` along where typing_extensions is installed.
    heavy = {"asyncio", "dataclasses", "email", "http", "json", "logging", "pathlib", "subprocess", "tempfile"}
    assert heavy & loaded == set()
    assert not {
        name
        for name in loaded
        if name.startswith("proa.") and name.split(".")[1] not in ("errors", "linux", "runtime", "_version")
    }


def test_public_names_exist() -> None:
    for name in proa.runtime.__all__:
        assert getattr(proa.runtime, name) is not None
