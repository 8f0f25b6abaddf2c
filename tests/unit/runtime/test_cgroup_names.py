"""What the cgroups package exports is what it says, whatever is used first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proa.runtime import cgroups


@pytest.mark.parametrize("first", cgroups.__all__)
def test_names_do_not_depend_on_the_order_of_use(first: str) -> None:
    program = (
        "from proa.runtime import cgroups\n"
        f"names = [{first!r}, *cgroups.__all__]\n"
        "assert all(callable(getattr(cgroups, name)) for name in names), names\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
