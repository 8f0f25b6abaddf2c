"""A process that runs engine operations in forks of itself, each with a fault to come, and reports what they said.

usage: fault_driver.py, one JSON request a line on standard input, one JSON answer a line on standard output. It is a
program of its own because an engine has threads: only a process without any may fork, and forking saves the imports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import store_walk
from fault_steps import Steps

from proa.api.status import as_failure
from proa.engine.engine import Engine
from proa.engine.types import ContainerConfig, CreateRequest, HostConfig
from proa.errors import Conflict, NotFound, ProaError
from proa.storage import upper_dir

EPOCH = 1_700_000_000


def pull(engine: Engine, reference: str) -> None:
    engine.transfers.pull(reference)


def push(engine: Engine, reference: str) -> None:
    engine.transfers.push(reference)


def load(engine: Engine, path: str) -> None:
    with open(path, "rb") as stream:
        engine.transfers.load(stream)


def import_tar(engine: Engine, path: str, repository: str) -> None:
    with open(path, "rb") as stream:
        engine.transfers.import_image(stream, repository=repository, source_date_epoch=EPOCH)


def create(engine: Engine, image: str, name: str, files: dict[str, str], *binds: str) -> None:
    host = HostConfig(network_mode="none", binds=list(binds))
    request = CreateRequest(config=ContainerConfig(image=image, cmd=["sh"]), host=host, name=name)
    try:
        identity = engine.containers.create(request).id
    except Conflict:
        identity = engine.containers.get(name).id  # an earlier try, interrupted after the deed, has made it
    top = Path(upper_dir(engine.storage.snapshots.mounts(f"container:{identity}")))
    for path, text in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)


def volume_import(engine: Engine, name: str, path: str) -> None:
    with open(path, "rb") as stream:
        engine.volumes.load(name, stream, replace=True)


def volume_clone(engine: Engine, name: str, new: str) -> None:
    try:
        engine.volumes.clone(name, new)
    except Conflict:
        pass  # an earlier try, interrupted after the deed, has made it


def volume_remove(engine: Engine, name: str) -> None:
    engine.volumes.remove(name, force=True)


def commit(engine: Engine, container: str, repository: str) -> None:
    engine.commits.commit(container, repository=repository, tag="1", source_date_epoch=EPOCH)


def rmi(engine: Engine, image: str) -> None:
    try:
        engine.images.remove(image)
    except NotFound:
        pass  # an earlier try, interrupted after the deed, has done it


def untag(engine: Engine, name: str) -> None:
    """Forget a name and collect nothing: what a crash between the two leaves."""
    try:
        engine.storage.images.delete(name)
    except NotFound:
        pass


def prune(engine: Engine) -> None:
    engine.images.prune({"dangling": ["false"]})


def collect(engine: Engine) -> None:
    engine.storage.collect(keep_interrupted_s=0)


OPERATIONS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        *(pull, push, load, import_tar, create, commit, rmi, untag, prune, collect),
        *(volume_import, volume_clone, volume_remove),
    )
}


def run(request: dict[str, Any], answer: int) -> None:
    """In a fork: the operations of one request on one engine."""

    def say(**fields: Any) -> None:
        os.write(answer, json.dumps(fields).encode() + b"\n")

    engine = Engine.open(Path(request["root"]), Path(request["run"]))
    fault = request.get("fault") or {}
    steps = Steps(fault.get("mode", ""), fault.get("at", 0), sticky=fault.get("sticky", False))
    if fault.get("worker"):
        _strike_worker(engine, fault["worker"], fault["at"])
    steps.install()
    for name, *args in request["do"]:
        try:
            if name == "walk":
                engine.storage.trash.drain(30)
                say(walk=store_walk.walk(engine))
                continue
            OPERATIONS[name](engine, *args)
            say(done=name, steps=steps.count)
        except (ProaError, OSError) as error:
            shown = as_failure(error)
            say(failed=name, kind=type(shown).__name__, code=shown.code, message=shown.message, steps=steps.count)
    if fault and not request.get("close"):
        os.kill(os.getpid(), signal.SIGKILL)  # an end without any tidying up, wherever the fault struck
    engine.storage.trash.drain(30)  # closing leaves to the next engine what a slow machine has not deleted yet
    engine.close()
    say(closed=True)


def _strike_worker(engine: Engine, call: str, at: int) -> None:
    """Have strace kill an unpack worker at its `at`-th system call of that name."""
    workers = engine.storage.workers
    with workers._lock:
        workers._zygote()
        assert workers._process is not None
        pid = workers._process.pid
    inject = f"inject={call}:signal=KILL:when={at}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, "-p", str(pid)],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    assert b"attached" in tracer.stderr.readline()


def serve() -> None:
    stopped = 0
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("kill"):
            os.kill(stopped, signal.SIGKILL)
            os.waitpid(stopped, 0)
            print("{}", flush=True)
            continue
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            os.setpgid(0, 0)
            code = 1
            try:
                run(request, theirs)
                code = 0
            except BaseException:
                import traceback

                os.write(theirs, json.dumps({"crashed": traceback.format_exc()}).encode() + b"\n")
            os._exit(code)
        os.close(theirs)
        _, status = os.waitpid(pid, os.WUNTRACED)
        stopped = pid if os.WIFSTOPPED(status) else 0
        if stopped:
            os.set_blocking(ours, False)  # it holds the other end
        said = b""
        while True:
            try:
                part = os.read(ours, 1 << 20)
            except BlockingIOError:
                break
            if not part:
                break
            said += part
        os.close(ours)
        answer = {
            "said": [json.loads(one) for one in said.splitlines()],
            "stopped": bool(stopped),
            "killed": os.WIFSIGNALED(status),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
