"""The same image and options on Docker and on proa: every difference must stand in docs/reference/docker-audit.md.

The rows of that table are `| options | fact | Docker | proa | why |`; the fact is a pattern of fnmatch.
"""

from __future__ import annotations

import fnmatch
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import facts
import pytest
from engines import PrivateEngine
from peers import Dockerd

from proa.runtime.seccomp.syscalls import syscall_numbers

TABLE = Path(__file__).parents[3] / "docs/reference/docker-audit.md"
VARIANTS = {
    "(none)": (),
    "--user user": ("--user", "user"),
    "--cap-drop ALL": ("--cap-drop", "ALL"),
    "--cap-add SYS_ADMIN": ("--cap-add", "SYS_ADMIN"),
    "--security-opt no-new-privileges": ("--security-opt", "no-new-privileges"),
    "--read-only": ("--read-only", "--tmpfs", "/tmp"),
}
LAST_CALL = 472


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("audit") / "audit"
    source = Path(__file__).with_name("syscalls.c")
    subprocess.run(["gcc", "-static", "-O1", "-o", target, source], check=True)
    return target


@pytest.fixture(scope="module")
def docker(busybox_tar: Path) -> Iterator[Dockerd]:
    with tempfile.TemporaryDirectory(prefix="audit-") as directory:
        daemon = Dockerd(Path(directory))
        daemon.run("import", str(busybox_tar), "busybox")
        yield daemon
        daemon.close()


def explained() -> list[tuple[str, str, str, str]]:
    """(options, fact, Docker, proa) of every row; patterns."""
    rows = []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 5 and cells[0] in ("always", *VARIANTS):
            rows.append((cells[0], cells[1], cells[2], cells[3]))
    assert len(rows) > 40
    return rows


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_difference_is_explained(variant: str, docker: Dockerd, box: PrivateEngine, prober: Path) -> None:
    command = ("run", "--rm", "--network", "none", *VARIANTS[variant], "-v", f"{prober}:/audit:ro", "busybox")
    script = facts.SCRIPT.replace("/audit\n", f"/audit {LAST_CALL}\n")
    theirs = facts.read(docker.run(*command, "sh", "-c", script).decode())
    ours = facts.read(box.out(*command, "sh", "-c", script))
    assert len(ours) > 500
    names = {f"call {number}": f"call {name}" for name, number in syscall_numbers("x86_64").items()}
    rows = explained()
    unexplained = []
    for key in sorted({*ours, *theirs}):
        before, after = theirs.get(key, "none"), ours.get(key, "none")
        shown = names.get(key, key)
        if before != after and not any(
            what in ("always", variant)
            and fnmatch.fnmatchcase(shown, fact)
            and fnmatch.fnmatchcase(before, docker_value)
            and fnmatch.fnmatchcase(after, proa_value)
            for what, fact, docker_value, proa_value in rows
        ):
            unexplained.append(f"| {variant} | {shown} | {before} | {after} |")
    assert not unexplained, "\n" + "\n".join(unexplained)
