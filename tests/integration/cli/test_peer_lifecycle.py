"""The docker command takes the same steps on dockerd and on proa: containers' lives, limits, health, events, stats."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Sequence
from typing import Any

import engines
import pytest

pytestmark = [pytest.mark.root, pytest.mark.peers]

QUIET = ("--network", "none")
STATE = (
    "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Running}} {{.State.Paused}} {{.RestartCount}}"
)
LIMITS = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{json .HostConfig.RestartPolicy}}"
HEALTH = "{{.State.Health.Status}} {{.State.Health.FailingStreak}} {{(index .State.Health.Log 0).Output}}"
NAMES = ("--format", "{{.Names}} {{.Status}}")

STEPS: Sequence[tuple[str, ...]] = (
    ("create", "--name", "lc1", *QUIET, "-m", "64m", "--label", "k=v", "busybox", "sleep", "1000"),
    ("start", "lc1"),
    ("start", "lc1"),
    ("rename", "lc1", "lc2"),
    ("rename", "lc2", "bad name"),
    ("pause", "lc2"),
    ("pause", "lc2"),
    ("ps", "--filter", "status=paused", "--format", "{{.Names}}"),
    ("rm", "lc2"),
    ("unpause", "lc2"),
    ("unpause", "lc2"),
    ("update", "-m", "256m", "lc2"),
    ("update", "-m", "128m", "--memory-swap", "256m", "--cpus", "0.5", "--restart", "always", "lc2"),
    ("update", "--cpu-quota", "5000", "lc2"),
    ("update", "-m", "1m", "lc2"),
    ("update", "-m", "64m", "nosuch"),
    ("inspect", "--format", LIMITS, "lc2"),
    ("exec", "lc2", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    ("kill", "-s", "USR2", "lc2"),  # its program ignores no signal: but the first process of a pid namespace does
    ("inspect", "--format", STATE, "lc2"),
    ("kill", "lc2"),
    ("wait", "lc2"),
    ("inspect", "--format", STATE, "lc2"),
    ("kill", "lc2"),
    ("stats", "--no-stream", "lc2"),
    ("restart", "-t", "0", "lc2"),
    ("stop", "-t", "0", "lc2"),
    ("ps", "-a", "--filter", "exited=137", *NAMES),
    ("ps", "-a", "--filter", "label=k=v", "--filter", "ancestor=busybox", "--filter", "network=none", *NAMES),
    ("ps", "-a", "--filter", "health=none", "--format", "{{.Names}} {{.Labels}} {{.Mounts}} {{.LocalVolumes}}"),
    ("rm", "lc2"),
    ("run", "--name", "fails", *QUIET, "--restart", "on-failure:2", "busybox", "sh", "-c", "echo again; exit 3"),
    ("run", "-d", "--name", "wrong", *QUIET, "--restart", "no:3", "busybox", "true"),
    ("run", "--rm", *QUIET, "-m", "8m", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=60"),
    ("run", "--name", "oom", *QUIET, "-m", "8m", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=60"),
    ("inspect", "--format", STATE, "oom"),
    ("run", "-d", "--name", "sick", *QUIET, "--health-cmd", "echo no; false", "--health-interval", "100ms",
     "--health-retries", "1", "busybox", "sleep", "1000"),
    ("run", "--rm", "--cpuset-cpus", "5000", *QUIET, "busybox", "true"),
    ("run", "--rm", "--cpu-period", "5", *QUIET, "busybox", "true"),
    ("run", "--rm", "--oom-score-adj", "5000", *QUIET, "busybox", "true"),
    ("run", "--rm", "--pid", "container:nosuch", *QUIET, "busybox", "true"),
    ("run", "--rm", "--uts", "wrong", *QUIET, "busybox", "true"),
    ("run", "--rm", "--ulimit", "nofile=77:88", *QUIET, "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"),
    ("run", "--rm", "--sysctl", "kernel.msgmax=9000", *QUIET, "busybox", "cat", "/proc/sys/kernel/msgmax"),
    ("run", "--rm", "--shm-size", "32m", *QUIET, "busybox", "sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"),
    ("run", "--rm", "--device", "/dev/zero:/dev/z:r", *QUIET, "busybox", "sh", "-c", "head -c 3 /dev/z | wc -c"),
    ("run", "--rm", "--group-add", "77", *QUIET, "busybox", "id", "-G"),
    ("run", "--rm", "--tmpfs", "/t:size=1m", *QUIET, "busybox", "sh", "-c", "df -k /t | tail -1 | awk '{print $2}'"),
    ("run", "--rm", "--oom-score-adj", "500", *QUIET, "busybox", "cat", "/proc/self/oom_score_adj"),
    ("container", "prune", "-f", "--filter", "label=absent"),
)  # fmt: skip


def docker(host: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "-H", host, *words], capture_output=True, text=True, check=False, timeout=60)


def plain(text: str) -> str:
    """Without what is new each time, and without what one version of docker's server words otherwise."""
    text = re.sub(r"[0-9a-f]{64}", "<id>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"(Less than a second|About a minute|[0-9]+ (second|minute)s?)( ago)?", "<when>", text)
    return text.replace("\r", "")


# Known differences: what proa says instead is asserted by tests of its own.
OTHER_WORDS = {
    ("run", "-d", "--name", "wrong"): "dockerd 20.10 words refused policies otherwise",
    ("run", "--rm", "--oom-score-adj", "5000"): "dockerd 20.10 has no check: runc's message",
    ("run", "--rm", "--cpuset-cpus", "5000"): "the set of CPUs there are is named",
}


def test_lives(dockerd: str, shared: engines.PrivateEngine) -> None:
    different = []
    for words in STEPS:
        theirs, ours = docker(dockerd, *words), docker(shared.socket, *words)
        if words[0] == "run" and "fails" in words:
            for host in (dockerd, shared.socket):
                engines.until(lambda h=host: "exited 3" in docker(h, "inspect", "--format", STATE, "fails").stdout)
        seen = [(d.returncode, plain(d.stdout), plain(d.stderr)) for d in (theirs, ours)]
        if words[:4] in OTHER_WORDS or words[:3] in [k[:3] for k in OTHER_WORDS if len(k) == 3]:
            seen = [(status, "", "") for status, _, _ in seen]
        if seen[0] != seen[1]:
            different.append((words, *seen))
    for host in (dockerd, shared.socket):
        engines.until(lambda h=host: "unhealthy" in docker(h, "inspect", "--format", HEALTH, "sick").stdout)
    for words in (
        ("logs", "fails"),
        ("inspect", "--format", STATE, "fails"),
        ("inspect", "--format", "{{.State.Health.Status}} {{(index .State.Health.Log 0).ExitCode}}", "sick"),
        ("ps", "--filter", "health=unhealthy", "--format", "{{.Names}} {{.Status}}"),
    ):
        theirs, ours = docker(dockerd, *words), docker(shared.socket, *words)
        if plain(theirs.stdout) != plain(ours.stdout):
            different.append((words, plain(theirs.stdout), plain(ours.stdout)))
    for host in (dockerd, shared.socket):
        docker(host, "rm", "-f", "fails", "wrong", "oom", "sick")
    assert not different, "\n".join(map(str, different))


def story(host: str) -> list[tuple[str, dict[str, str]]]:
    """What the events tell of one container's life, and of one that removes itself."""
    label = f"told={uuid.uuid4().hex}"  # only these: a test that is repeated finds what it left
    for words in (
        ("create", "--name", "told", *QUIET, "--label", label, "busybox", "sleep", "1000"),
        ("start", "told"),
        ("pause", "told"),
        ("unpause", "told"),
        ("rename", "told", "retold"),
        ("update", "--cpu-shares", "256", "retold"),
        ("exec", "retold", "true"),
        ("kill", "-s", "USR1", "retold"),
        ("restart", "-t", "0", "retold"),
        ("stop", "-t", "0", "retold"),
        ("rm", "retold"),
        ("run", "--rm", "--name", "short", *QUIET, "--label", label, "busybox", "true"),
    ):
        done = docker(host, *words)
        assert done.returncode == 0, (words, done.stderr)
    asked = (
        "--since",
        "5m",
        "--until",
        "0s",
        "--filter",
        "type=container",
        "--filter",
        f"label={label}",
        "--format",
        "json",
    )
    # The command asks until the second that has begun: the last events are told in the next one.
    whole = engines.until(lambda: re.search('(?s)^.*("Action":"destroy".*){2}$', docker(host, "events", *asked).stdout))
    found = []
    for line in whole[0].splitlines():
        event: dict[str, Any] = json.loads(line)
        attributes = event["Actor"]["Attributes"]
        attributes.pop("told")
        attributes.pop("execDuration", None)  # newer than Debian's dockerd
        attributes = {k: "<id>" if k == "execID" else v for k, v in attributes.items()}
        found.append((event["Action"].strip(), attributes))
        assert event["from"] == "busybox"
        assert event["status"] == event["Action"]
        assert event["scope"] == "local"
        assert event["timeNano"] // 10**9 == event["time"]
    return found


def test_events_tell_the_same_story(dockerd: str, shared: engines.PrivateEngine) -> None:
    theirs, ours = story(dockerd), story(shared.socket)
    assert ours == theirs


def shape(value: Any) -> Any:
    """The members and types of a document; a list is its first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_stats_have_the_same_shape(dockerd: str, shared: engines.PrivateEngine) -> None:
    shapes = []
    for host in (dockerd, shared.socket):
        docker(
            host, "run", "-d", "--name", "measured", *QUIET, "-m", "64m", "busybox", "sh", "-c", "while :; do :; done"
        )
        try:
            url = ("curl", "-sS", "--unix-socket", host.removeprefix("unix://"))
            raw = subprocess.run(
                [*url, "http://d/v1.41/containers/measured/stats?stream=0"], capture_output=True, check=True
            )
            found = shape(json.loads(raw.stdout))
            for name in ("memory_stats", "blkio_stats"):  # the kernel's own members; it has written none yet
                found[name] = sorted(found[name])
            found["pids_stats"].pop("limit", None)  # proa has one for everybody
            shapes.append(found)
            row = docker(
                host, "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.NetIO}} {{.PIDs}}", "measured"
            )
            assert re.fullmatch(r"measured [0-9.]+[kKM]iB / 64MiB 0B / 0B 1\n", row.stdout), row
            cpu = docker(host, "stats", "--no-stream", "--format", "{{.CPUPerc}}", "measured").stdout
            assert float(cpu.strip().removesuffix("%")) > 5, cpu
        finally:
            docker(host, "rm", "-f", "measured")
    assert shapes[0] == shapes[1]
