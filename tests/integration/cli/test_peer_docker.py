"""The same words to proa and to docker, both to one dockerd and both to one engine of proa: the same answers."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import engines
import pytest

pytestmark = [pytest.mark.root, pytest.mark.peers]

SCENARIO = [
    ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"),
    ("images", "-q", "--no-trunc"),
    ("run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"),
    ("run", "--rm", "--network", "none", "busybox", "no-such-command"),
    ("run", "--rm", "--network", "none", "busybox", "/etc/passwd"),
    ("run", "--no-such-flag", "busybox"),
    ("run", "-d", "--name", "peer", "--network", "none", "-l", "a=1", "busybox", "sleep", "100"),
    ("ps", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.Ports}} {{.Labels}} {{.Networks}} {{.State}}"),
    ("ps", "--format", "table {{.Names}}\t{{.Image}}\t{{.Command}}"),
    ("ps", "-a", "--filter", "label=a=1", "--format", "{{json .Names}}"),
    ("exec", "peer", "sh", "-c", "echo in; exit 5"),
    ("exec", "peer", "no-such-command"),
    ("exec", "nope", "true"),
    (
        "inspect",
        "--format",
        "{{.State.Status}} {{.Config.Cmd}} {{json .Config.Labels}} {{.HostConfig.NetworkMode}}",
        "peer",
    ),
    (
        "inspect",
        "--format",
        "{{range .Config.Cmd}}[{{.}}]{{end}}{{len .Config.Cmd}}{{if .State.Running}}up{{end}}",
        "peer",
    ),
    ("inspect", "nope"),
    ("port", "peer"),
    ("kill", "peer"),
    ("kill", "peer"),
    ("wait", "peer"),
    ("logs", "peer"),
    ("rm", "peer", "nope"),
    ("history", "--format", "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", "busybox"),
    ("tag", "busybox", "peer/name:1"),
    ("rmi", "peer/name:1"),
    ("rmi", "nope"),
    ("rm",),
]


def spoken(program: str, host: str, arguments: tuple[str, ...]) -> tuple[int, str]:
    command = [engines.PROA if program == "proa" else "docker", "-H", host, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    # An id that is new each time says nothing.
    out = "<id>\n" if len(done.stdout) == 65 and arguments[:2] == ("run", "-d") else done.stdout
    return done.returncode, out


@pytest.mark.parametrize("server", ["dockerd", "proa"])
def test_the_answers_are_the_same(server: str, request: pytest.FixtureRequest) -> None:
    host = request.getfixturevalue("dockerd") if server == "dockerd" else request.getfixturevalue("shared").socket
    ours = [(words, spoken("proa", host, words)) for words in SCENARIO]
    theirs = [(words, spoken("docker", host, words)) for words in SCENARIO]
    different = [(mine, other[1]) for mine, other in zip(ours, theirs, strict=True) if mine != other]
    assert not different


COPIES = [
    ("cp", "src/a", "copied:/tmp/"),
    ("cp", "src/a", "copied:/tmp/newname"),
    ("cp", "src", "copied:/tmp/"),
    ("cp", "src", "copied:/tmp/fresh"),
    ("cp", "src/.", "copied:/tmp/contents"),
    ("cp", "src/.", "copied:/opt"),
    ("cp", "src", "copied:/nope/deeper"),
    ("cp", "src/a", "copied:/nope/deeper"),
    ("cp", "src/a", "copied:/nope/"),
    ("cp", "src", "copied:/tmp/newname"),
    ("cp", "src/a", "copied:/tmp/src"),
    ("cp", "nothing", "copied:/tmp"),
    ("cp", "copied:/nothing", "."),
    ("cp", "copied:/tmp/a", "nowhere/x"),
    ("cp", "copied:/tmp/a", "nowhere/"),
    ("cp", "filelink", "copied:/tmp/"),
    ("cp", "-L", "filelink", "copied:/tmp/followed"),
    ("cp", "dirlink", "copied:/tmp/"),
    ("cp", "-L", "dirlink", "copied:/tmp/dfollowed"),
    ("cp", "src/a", "copied:/tmp/dirlink"),
    ("cp", "-a", "src/a", "copied:/tmp/archived"),
    ("cp", "copied:/tmp/fresh", "OUT/out1"),
    ("cp", "copied:/tmp/fresh/.", "OUT/out2"),
    ("cp", "copied:/tmp/fresh", "OUT"),
    ("cp", "copied:tmp/filelink", "OUT/out4"),
    ("cp", "-L", "copied:/tmp/src/link", "OUT/out5"),
    ("cp", "copied:/tmp/a", "OUT/out6"),
    ("cp", "OUT/out6", "OUT/out7"),
    ("cp", "copied:/tmp/a", "copied:/tmp/b"),
    ("cp", "copied:/tmp", "OUT/end"),
    ("cp", "copied:/opt", "OUT/end"),
    ("export", "-o", "OUT/exported", "copied"),
    ("diff", "copied"),
    ("diff", "nope"),
    ("export", "nope"),
]


def copied(program: str, host: str, directory: Path) -> tuple[list[object], list[str]]:
    """What the steps answer, and the files they make on this machine."""
    directory.mkdir()
    host_files(directory)
    command = [engines.PROA if program == "proa" else "docker", "-H", host]
    subprocess.run([*command, "create", "--name", "copied", "busybox", "true"], check=True, capture_output=True)
    answers: list[object] = []
    try:
        for step in COPIES:
            words = [word.replace("OUT", str(directory / "out")) for word in step]
            done = subprocess.run([*command, *words], cwd=directory, capture_output=True, check=False, timeout=60)
            answers.append((step, done.returncode, sorted(done.stdout.splitlines())))
    finally:
        subprocess.run([*command, "rm", "-f", "copied"], check=True, capture_output=True)
    with tarfile.open(directory / "out/exported") as archive:
        exported = [
            f"{m.name} {m.type!r} {m.mode & 0o7777:o} {m.uid}:{m.gid} {m.size} {m.linkname}"
            for m in sorted(archive, key=lambda m: m.name)
            if m.name.startswith(("tmp", "opt", "bin/b"))
        ]
    (directory / "out/exported").unlink()
    files = subprocess.run(
        ["find", ".", "-printf", "%p %y %m %U:%G %l %s\n"], cwd=directory, capture_output=True, text=True, check=True
    )
    return answers, exported + sorted(line for line in files.stdout.splitlines() if " d " not in line)


def host_files(directory: Path) -> None:
    (directory / "src/sub").mkdir(parents=True)
    (directory / "out/end").mkdir(parents=True)
    (directory / "src/a").write_text("hello")
    (directory / "src/sub/b").write_text("x")
    (directory / "src/link").symlink_to("a")
    (directory / "src/sub/b").chmod(0o4751)
    (directory / "src" / "\u00fc l\u00e4").write_text("name")
    os.chown(directory / "src/a", 1234, 2345)
    os.link(directory / "src/a", directory / "src/again")
    (directory / "dirlink").symlink_to("src")
    (directory / "filelink").symlink_to("src/a")


@pytest.mark.parametrize("program", ["proa", "docker"])
def test_copies_are_the_same(program: str, dockerd: str, shared: engines.PrivateEngine, tmp_path: Path) -> None:
    expected, their_files = copied("docker", dockerd, tmp_path / "docker")
    answers, files = copied(program, shared.socket, tmp_path / "ours")
    assert [pair for pair in zip(answers, expected, strict=True) if pair[0] != pair[1]] == []
    assert files == their_files


TELLING = "echo one; sleep 0.3; echo two >&2; sleep 0.3; printf three"  # two pipes are read in no order
LOGS = [
    (
        *("run", "--name", "told", "--network", "none", "-l", "a=b c", "-e", "M=1", "--log-opt", "labels=a"),
        *("--log-opt", "env=M", "busybox", "sh", "-c", TELLING),
    ),
    ("logs", "told"),
    ("logs", "--details", "told"),
    ("logs", "-t", "--details", "told"),
    ("logs", "--tail", "1", "told"),
    ("logs", "--tail", "0", "told"),
    ("logs", "--tail", "x", "told"),
    ("logs", "--since", "1h", "told"),
    ("logs", "--since", "2000-01-01", "--until", "2001-01-01", "told"),
    ("logs", "--until", "1h", "told"),
    ("logs", "-f", "told"),
    ("logs", "nope"),
    ("run", "--name", "mute", "--network", "none", "--log-driver", "none", "busybox", "echo", "hi"),
    ("logs", "mute"),
    ("run", "--name", "near", "--network", "none", "--log-driver", "local", "busybox", "echo", "hi"),
    ("logs", "-t", "near"),
    ("create", "--name", "wrong", "--log-driver", "nope", "busybox", "true"),
    ("create", "--name", "wrong", "--log-opt", "nope=1", "busybox", "true"),
    ("create", "--name", "wrong", "--log-opt", "mode=fast", "busybox", "true"),
    ("create", "--name", "wrong", "--log-opt", "max-buffer-size=1m", "busybox", "true"),
    ("create", "--name", "wrong", "--log-driver", "syslog", "--log-opt", "syslog-address=foo", "busybox", "true"),
    ("create", "--name", "wrong", "--log-driver", "syslog", "--log-opt", "syslog-facility=foo", "busybox", "true"),
    ("inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Config.env}}", "told"),
    ("top", "told"),
    ("attach", "told"),
    ("run", "-d", "--name", "long", "--network", "none", "busybox", "sleep", "100"),
    ("top", "long", "-o", "pid,comm"),
    ("top", "long", "-o", "comm"),
    ("rm", "-f", "told", "mute", "near", "long"),
]


def listened(program: str, host: str) -> list[object]:
    """Exit statuses and what was written, without times, ids and the numbers of processes."""
    out: list[object] = []
    for step in LOGS:
        code, text = spoken(program, host, step)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
        out.append((step, code, re.sub(r"\b\d{2,}\b", "N", text).split()))
    return out


@pytest.mark.parametrize("program", ["proa", "docker"])
def test_logs_are_the_same(program: str, dockerd: str, shared: engines.PrivateEngine) -> None:
    expected = listened("docker", dockerd)
    pairs = zip(listened(program, shared.socket), expected, strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


def test_we_have_the_flags_of_docker_run() -> None:
    """What we leave out is left out on purpose."""
    from proa.cli.container_rows import RUN_ROWS

    text = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=True).stdout
    theirs = {
        word.lstrip("-")
        for word in text.split()
        if word.startswith("--") and word.strip("-").replace("-", "").isalnum()
    }
    missing = theirs - {row[0] for row in RUN_ROWS} - {"help"}
    assert missing <= {
        *("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops", "isolation"),  # Windows
        *("cpu-rt-period", "cpu-rt-runtime", "kernel-memory"),  # gone from kernels
        *("disable-content-trust", "link-local-ip", "use-api-socket"),
    }
