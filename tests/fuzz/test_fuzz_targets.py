"""Each fuzz target for some seconds: only a ProaError comes of it.

By default a minute for all with the same numbers each time, so that a change is judged by itself; PROA_FUZZ_SECONDS
looks for what is new that long, with numbers of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, seeds

PROGRAM = Path(__file__).parents[1] / "support" / "fuzz.py"
SEARCH = os.environ.get("PROA_FUZZ_SECONDS")
SECONDS = int(SEARCH or 12)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(seed)
    options = [f"-max_total_time={SECONDS}", "-timeout=5", "-rss_limit_mb=1024", "-max_len=8192"]
    options += [] if SEARCH else ["-seed=1"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), target, *options, f"-artifact_prefix={tmp_path}/", str(corpus)],
        env={**os.environ, "PYTHONHASHSEED": "random" if SEARCH else "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{found}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "DONE" in done.stderr
