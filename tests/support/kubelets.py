"""What a kubelet does with an engine: cri-dockerd before it, and crictl as who asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import clients
import images
from engines import PrivateEngine, free_port, until

PAUSE = "pause:1"
# It would set the host's net.bridge.* and the OOM scores of other engines on this machine.
CONFINED = (
    *("unshare", "--mount", "sh", "-c", 'mount -o bind,ro /proc/sys /proc/sys && exec "$@"', "sh"),
    *("setpriv", "--inh-caps=-sys_resource,-sys_module", "--bounding-set=-sys_resource,-sys_module"),
)
CNI = Path("/usr/lib/cni")


def needed() -> str:
    """What is missing to run them, in words; empty when nothing is."""
    if not (clients.named_program("PROA_CRI_DOCKERD") and clients.named_program("PROA_CRICTL")):
        return (
            "cri-dockerd and crictl are in no package index: PROA_CRI_DOCKERD and PROA_CRICTL name their programs"
            " (port forwarding takes socat)"
        )
    return "" if shutil.which("socat") else "cri-dockerd forwards ports by socat: apt-get install socat"


class Kubelet:
    """A cri-dockerd of its own in front of an engine.

    subnet: pods get addresses of it by the CNI plugin ptp; without one the engine's default network is theirs
    """

    def __init__(self, engine: PrivateEngine, directory: Path, subnet: str = "") -> None:
        self.directory = directory
        self._engine = engine
        self._parent = f"pods-test-{os.getpid()}"
        self._socket = f"unix://{directory}/cri.sock"
        script = "trap 'exit 0' TERM; sleep 100000 & wait"
        change = f"CMD {json.dumps(['sh', '-c', script])}"
        engine.proa("import", "--change", change, str(images.busybox_tar()), PAUSE)
        for name in ("cni", "addresses", "logs", "root"):
            (directory / name).mkdir()
        (directory / "crictl.yaml").write_text(
            f"runtime-endpoint: {self._socket}\nimage-endpoint: {self._socket}\ntimeout: 60\n"
        )
        network = ["--network-plugin", "cni" if subnet else "no-op", "--cni-bin-dir", str(CNI)]
        if subnet:
            addresses = {"type": "host-local", "dataDir": f"{directory}/addresses", "subnet": subnet}
            plugin = {"type": "ptp", "ipam": {**addresses, "routes": [{"dst": "0.0.0.0/0"}]}}
            document = {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}
            (directory / "cni/10-pods.conflist").write_text(json.dumps(document))
        argv = [*CONFINED, str(clients.named_program("PROA_CRI_DOCKERD")), *network]
        argv += ["--container-runtime-endpoint", self._socket, "--docker-endpoint", engine.socket]
        argv += ["--cri-dockerd-root-directory", f"{directory}/root", "--pod-infra-container-image", PAUSE]
        argv += ["--cni-conf-dir", f"{directory}/cni", "--cni-cache-dir", f"{directory}/addresses"]
        argv += ["--streaming-bind-addr", f"127.0.0.1:{free_port()}"]
        with (directory / "cri-dockerd.log").open("wb") as log:
            self._process = subprocess.Popen(argv, env=engine.env, stdout=log, stderr=log)
        until(lambda: self._process.poll() is not None or self.asks("version").returncode == 0, "cri-dockerd to serve")
        assert self._process.poll() is None, self.log()

    def log(self) -> str:
        """cri-dockerd's last words."""
        return (self.directory / "cri-dockerd.log").read_text(errors="replace")[-4000:]

    def command(self, *words: str) -> list[str]:
        """The argv of a crictl that asks it."""
        return [str(clients.named_program("PROA_CRICTL")), "--config", f"{self.directory}/crictl.yaml", *words]

    def asks(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`crictl WORDS`."""
        return subprocess.run(
            self.command(*words),
            input=stdin,
            env=self._engine.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def out(self, *words: str, stdin: str = "") -> str:
        """What a crictl that must succeed prints, without the last newline."""
        done = self.asks(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.log()}"
        return done.stdout.rstrip("\n")

    def pod(self, name: str, **more: Any) -> tuple[str, Path]:
        """Run a pod; its id, and the file that describes it."""
        linux = {"cgroup_parent": f"/{self._parent}", **more.pop("linux", {})}
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": 0}
        document = {"metadata": metadata, "log_directory": f"{self.directory}/logs", "linux": linux, **more}
        path = self.directory / f"pod-{name[:40]}.json"
        path.write_text(json.dumps(document))
        return self.out("runp", str(path)), path

    def container(self, pod: tuple[str, Path], name: str, script: str, **more: Any) -> str:
        """Make and start a container of busybox in a pod; its id. Its log is `NAME.log` of the logs' directory."""
        metadata = {"name": name, "attempt": 0}
        document = {"metadata": metadata, "image": {"image": "busybox"}, "command": ["sh", "-c"], "args": [script]}
        path = self.directory / f"container-{name[:40]}.json"
        path.write_text(json.dumps({**document, "log_path": f"{name[:40]}.log", **more}))
        made = self.out("create", pod[0], str(path), str(pod[1]))
        assert self.out("start", made) == made
        return made

    def status(self, kind: str, name: str) -> Any:
        """The `status` of what inspect, inspectp or inspecti say."""
        return json.loads(self.out(kind, name))["status"]

    def close(self) -> None:
        """Remove the pods, end cri-dockerd, and remove the cgroup that was the pods' parent: the engine leaves it."""
        try:
            if pods := self.out("pods", "-q").split():
                self.out("rmp", "-f", *pods)
        finally:
            self._process.terminate()
            self._process.wait(30)
        for place in (Path("/sys/fs/cgroup") / self._parent, *Path("/sys/fs/cgroup").glob(f"*/{self._parent}")):
            if place.is_dir() and not place.is_symlink():
                place.rmdir()
