"""The same words to proa and to docker, both to one dockerd and both to one engine of proa: the same answers."""

from __future__ import annotations

import subprocess

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
    assert missing == {
        *("blkio-weight-device", "device-read-bps", "device-read-iops", "device-write-bps", "device-write-iops"),
        *("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops", "isolation"),  # Windows
        *("cpu-rt-period", "cpu-rt-runtime", "kernel-memory"),  # gone from kernels
        *("disable-content-trust", "link", "link-local-ip", "volume-driver", "gpus", "use-api-socket"),
    } & (missing | theirs)
