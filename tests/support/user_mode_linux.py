"""A machine with cgroups of version 2 on a host that has version 1: user-mode Linux over the host's own files.

Debian's package `user-mode-linux`: a kernel that is an ordinary process, with one processor, and the host's root as its
read-only root. It has the controllers cpu, io, memory and pids, and loads overlayfs and the network as modules. What
runs in it is the same tree and interpreter as here; a start takes some two seconds, a system call some 0.1 ms.

    host      run(command)  ->  linux.uml … init=<python> -- <this file> <directory>
    guest     this file as process 1: mounts, modules, the command of <directory>/command, its status to <directory>
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

KERNEL = "/usr/bin/linux.uml"
_MODULES = Path("/usr/lib/uml/modules")
# overlay: root file systems; nf_tables: what the leak check asks; the rest: containers with a network.
_WANTED = ("overlay", "nf_tables", "nft_chain_nat", "nft_masq", "nft_ct", "nft_fib_inet", "veth", "bridge")
_SHARED = "/mnt"


def run(
    command: Sequence[str], *, files: Sequence[Path] = (), memory_mib: int = 768, timeout_s: float = 150
) -> tuple[int, str]:
    """Run a command as root in a new machine; returns its exit status and what the machine said.

    files: what the tests' cache of the guest is to hold. The working directory is the top of this tree.
    """
    directory = Path(tempfile.mkdtemp(prefix="uml-proa-"))
    try:
        for file in files:
            shutil.copy(file, directory)
        (directory / "command").write_text("\0".join(command))
        machine = subprocess.Popen(
            [
                KERNEL,
                *(f"mem={memory_mib}M", "root=/dev/root", "rootfstype=hostfs", "ro", "quiet", "security=none"),
                *("con=null", "con0=null,fd:1", f"uml_dir={directory}", "umid=machine"),
                *(f"init={sys.executable}", "--", "-I", "-S", __file__, str(directory)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": "/dev/shm"},
            start_new_session=True,
        )
        try:
            said = machine.communicate(timeout=timeout_s)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(machine.pid, signal.SIGKILL)
            said = machine.communicate()[0].decode(errors="replace") + "\nthe machine was too slow"
        status = directory / "status"
        return int(status.read_text()) if status.exists() else -1, said
    finally:
        shutil.rmtree(directory)


def _mount(kind: str, target: str, options: str = "") -> None:
    if ctypes.CDLL(None, use_errno=True).mount(kind.encode(), target.encode(), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def _load_modules() -> None:
    release = os.uname().release
    top = _MODULES / release
    needs: dict[str, list[str]] = {}
    for line in (top / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).stem] = [path, *others.split()]
    loaded: set[str] = set()
    for name in _WANTED:
        for path in reversed(needs.get(name, ())):
            if path not in loaded:
                loaded.add(path)
                with open(top / path, "rb") as file:
                    ctypes.CDLL(None).syscall(313, file.fileno(), b"", 0)  # finit_module


def _guest(directory: str) -> None:
    """Process 1."""
    for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp"), ("tmpfs", "/run")):
        if not any(path.startswith(f"{target}/") for path in (__file__, sys.executable)):
            _mount(kind, target)
    for kind, target in (("tmpfs", "/dev/shm"), ("devpts", "/dev/pts"), ("mqueue", "/dev/mqueue")):
        os.mkdir(target)
        _mount(kind, target)
    _mount("cgroup2", "/sys/fs/cgroup")
    _mount("hostfs", _SHARED, directory)
    _load_modules()
    command = Path(_SHARED, "command").read_text().split("\0")
    environment = {
        "HOME": "/run",
        "PROA_TEST_CACHE": _SHARED,
        "TMPDIR": "/run",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Importing them takes four seconds there; the tests need none but what they name.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "LC_ALL": "C.UTF-8",
    }
    # A child, so that process 1 has nothing to do but to collect orphans.
    tree = Path(__file__).parents[2]
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, cwd=tree)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            break
    Path(_SHARED, "status").write_text(str(os.waitstatus_to_exitcode(status)))
    os.sync()


if __name__ == "__main__":
    try:
        _guest(sys.argv[1])
    except BaseException as error:
        sys.stderr.write(f"the guest's first process failed: {error!r}\n")
    finally:
        ctypes.CDLL(None).reboot(0x4321FEDC)  # RB_POWER_OFF
