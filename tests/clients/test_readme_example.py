"""What README.md shows is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from engines import PrivateEngine

pytestmark = pytest.mark.root

README = Path(__file__).parents[2] / "README.md"


def python_examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_there_is_an_example() -> None:
    assert len(python_examples()) >= 1


@pytest.mark.parametrize("number", range(len(python_examples())))
def test_the_python_example(engine: PrivateEngine, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", python_examples()[number]],
        capture_output=True,
        text=True,
        env=engine.env,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Hello from proa!" in done.stdout
    assert engine.containers() == []


@pytest.mark.parametrize("command", ["run --rm hello"])
def test_the_commands(engine: PrivateEngine, command: str) -> None:
    assert f"proa {command}" in README.read_text(encoding="utf-8")
    assert engine.out(*command.split()).startswith("Hello from proa!")
