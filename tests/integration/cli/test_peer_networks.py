"""The docker command's words about networks to dockerd and to proa: the same answers, error texts included.

Docker 20.10 is what Debian has. Where later versions say it otherwise, we say it as they do: `REWORDED` has both. What
is different on purpose is not asked: IPv6 is on by default, `bridge` is there, and a network that does not exist is
refused before the container is made.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import engines
import pytest

pytestmark = [pytest.mark.root, pytest.mark.peers]

SCENARIO = """
network inspect nope
network create net1
network create net1
network create bridge
network create host
network create -d host h2
network create -d null h3
network create -d nosuch h4
network create --ipv6=false --subnet 10.77.1.0/24 --gateway 10.77.1.254 --ip-range 10.77.1.128/25 --label a=b \
-o com.docker.network.bridge.enable_icc=false --aux-address x=10.77.1.5 net2
network inspect net2
network create --subnet 10.77.1.0/25 net3
network create --subnet 10.77.9.1/33 net3
network create --subnet bogus net3
network create --subnet 10.77.2.0/24 --gateway 10.78.0.1 net3
network create --subnet 10.77.4.0/24 --subnet 10.77.5.0/24 two
network create --ipv6=false --internal --subnet 10.77.3.0/24 priv
network inspect --format {{.Name}}|{{.Internal}}|{{json_.IPAM.Config}} priv
network ls --filter type=custom --format {{.Name}}|{{.Driver}}|{{.Scope}}|{{.Internal}}
network ls --filter label=a --format {{.Name}}
network ls --filter label=a=c --format {{.Name}}
network ls --filter name=net --format {{.Name}}
network ls --filter dangling=true --format {{.Name}}
network ls --filter driver=null --format {{.Name}}
network ls --filter bogus=1
network ls -q --filter name=nothing
run -d --name c1 --network net2 --ip 10.77.1.7 --network-alias al busybox sleep 1000
run -d --name c2 --network net1 busybox sleep 1000
run -d --name c3 --network none busybox sleep 1000
run -d --name c4 --network host busybox sleep 1000
run -d --name c5 --network container:c1 -p 80:80 busybox sleep 1000
run --name c6 --network net1 --ip 10.1.2.3 busybox sleep 1000
run --name c7 --network net2 --ip 10.77.1.7 busybox sleep 1000
run --name c8 --network-alias foo --network host busybox sleep 1000
create --name st --network net2 busybox sleep 1000
network connect net2 c1
network connect net2 c2
network connect net2 c2
network connect --ip 10.77.1.8 net2 c4
network connect net2 c3
network connect host c2
network connect none c2
network connect nope c2
network connect net2 nope
network connect net1 st
network inspect --format {{range_.Containers}}{{.Name}},{{.IPv4Address}};{{end}} net2
inspect --format {{json_.HostConfig.NetworkMode}}{{with_index_.NetworkSettings.Networks_"net2"}}{{json_.IPAMConfig}}\
{{.IPAddress}}|{{.Gateway}}|{{.IPPrefixLen}}{{end}} c1
network disconnect net2 c2
network disconnect net2 c2
network disconnect host c4
network disconnect nope c2
network disconnect net1 nope
network disconnect -f net1 nope
network disconnect net1 st
network disconnect net1 st
network rm net1
network rm net1 nope
network rm host
network prune -f
network ls --filter type=custom --format {{.Name}}
rm -f c1 c2 c3 c4 st
network rm net1 net2
network ls --filter type=custom --format {{.Name}}
"""
REWORDED = {
    r'(could not find plugin nosuch in v1 plugin registry: )?plugin "nosuch" not found': "<no such plugin>",
    r"(invalid pool request: )?Pool overlaps with other one on this address space(: .*)?": "<overlap>",
    r"Invalid subnet (\S+) : invalid CIDR address: \S+|invalid subnet (\S+): invalid CIDR block notation": "<subnet>",
    r"network net1( id <id>)? has active endpoints( \(.*\))?": "<active>",
    r"[Ii]nvalid filter": "<filter>",
}


def _words() -> list[list[str]]:
    return [
        [word.replace("_.", " .").replace('_"', ' "').replace("with_", "with ") for word in line.split()]
        for line in SCENARIO.replace("\\\n", "").strip().splitlines()
    ]


def _spoken(host: str, words: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        ["docker", "-H", host, *words], capture_output=True, text=True, check=False, timeout=60, env=_ENVIRONMENT
    )
    return done.returncode, _anonymous(done.stdout), _anonymous(done.stderr)


_ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}


def _anonymous(text: str) -> str:
    """Without what is new each time, and without what API 1.44 added."""
    text = text.replace("10.88.", "10.77.")
    text = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d)", "<time>", text)
    text = re.sub(r' *"EnableIPv4": true,\n', "", text)
    if text.count(";") > 1:  # containers, by ids that are new each time
        text = ";".join(sorted(text.strip().split(";")))
    for pattern, meaning in REWORDED.items():
        text = re.sub(pattern, meaning, text)
    return text


@pytest.fixture
def clean(shared: engines.PrivateEngine, dockerd: str) -> Iterator[None]:
    yield
    for host in (shared.socket, dockerd):
        for name in ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "st"):
            _spoken(host, ["rm", "-f", name])
        for name in ("net1", "net2", "net3", "priv", "two"):
            _spoken(host, ["network", "rm", name])


@pytest.mark.usefixtures("clean")
def test_networks_are_spoken_of_alike(shared: engines.PrivateEngine, dockerd: str) -> None:
    different = []
    for words in _words():
        theirs = _spoken(dockerd, words)
        # The same host: another subnet, or ours would rightly clash with theirs.
        ours = _spoken(shared.socket, [word.replace("10.77.", "10.88.") for word in words])
        if words[0] == "run" and theirs[0] == ours[0] != 0:
            theirs, ours = (theirs[0], "", theirs[2]), (ours[0], "", ours[2])  # the id of one that did not start
        if theirs != ours:
            different.append((words, theirs, ours))
    assert not different, "\n".join(map(str, different))
