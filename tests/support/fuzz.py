"""Fuzz one target with atheris: fuzz.py TARGET [options of libFuzzer], for example -max_total_time=600 CORPUS.

A crash leaves its input as a file `crash-…`; the same program with that file as argument repeats it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["proa"]):
    from fuzz_targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
