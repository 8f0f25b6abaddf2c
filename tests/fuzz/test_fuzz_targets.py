"""Each fuzz target for some seconds (PROA_FUZZ_SECONDS; by default a minute for all): only a ProaError comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, seeds

PROGRAM = Path(__file__).parents[1] / "support" / "fuzz.py"
SECONDS = int(os.environ.get("PROA_FUZZ_SECONDS", "12"))


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
    done = subprocess.run(
        [sys.executable, str(PROGRAM), target, *options, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{found}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "DONE" in done.stderr
