"""Specgen: a container's record to the OCI config.json its monitor gets (runtime-spec config.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from proa.engine.devices import device_nodes, device_rules
from proa.engine.joined import Joined
from proa.engine.merge import merge_env
from proa.engine.namespaces import SHARED_MEMORY, namespaces
from proa.engine.resources import linux_resources
from proa.engine.secrets import NOTHING_GIVEN, Given
from proa.engine.security import resolve_security
from proa.engine.types import Container, ExecRequest, MountPoint
from proa.engine.userns import last_group
from proa.errors import Invalid
from proa.runtime import defaults

_TTY_GROUP = 5


def oci_config(
    record: Container,
    joined: Joined,
    *,
    files: Mapping[str, str],
    cgroup: str,
    shared: Mapping[str, str] | None = None,
    images: Mapping[str, Mapping[str, Any]] | None = None,
    given: Given = NOTHING_GIVEN,
) -> dict[str, Any]:
    """The config.

    joined: its place on the network; files: destination -> source of the generated files (/etc/hosts …); cgroup: the
    path below every hierarchy; shared: paths of other containers' namespaces, by kind; images: destination -> mount of
    a mounted image; given: secrets. Raises Invalid, Unsupported.
    """
    host = record.host
    security = resolve_security(host)
    resources = linux_resources(host)
    resources["devices"] = device_rules(record)
    environment = [*(record.config.env or []), *given.environment]
    mounts = _mounts(record, files, images or {}, shared or {})
    mapped = record.id_maps is not None
    mounts += [_secret_mount(target, source, mapped=mapped) for target, source in given.files.items()]
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            **_process(environment, [record.path, *record.args], record, security.capabilities),
            "terminal": record.config.tty,
            "noNewPrivileges": security.no_new_privileges,
        },
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "hostname": "" if host.uts_mode == "host" else joined.hostname,
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces(host, joined.namespace, shared or {}),
            "cgroupsPath": cgroup,
            "resources": resources,
            "devices": device_nodes(record),
            "maskedPaths": security.masked_paths,
            "readonlyPaths": security.readonly_paths,
            "sysctl": _sysctls(record, joined),
        },
        # Keys of ours turn things off and on: nobody else may set them.
        "annotations": {k: v for k, v in (host.annotations or {}).items() if not k.startswith("proa.")},
    }
    if record.id_maps is not None:
        config["linux"]["namespaces"].append({"type": "user"})
        for key, maps in (("uidMappings", record.id_maps.uids), ("gidMappings", record.id_maps.gids)):
            config["linux"][key] = [{"containerID": a, "hostID": b, "size": c} for a, b, c in maps]
    if record.config.domainname and host.uts_mode != "host":
        config["domainname"] = record.config.domainname
    if record.config.tty and any(host.console_size):
        config["process"]["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    if security.seccomp == "default":
        config["annotations"]["proa.seccomp"] = "default"
    elif security.seccomp != "unconfined":
        config["linux"]["seccomp"] = security.seccomp
    if host.init:
        config["annotations"]["proa.init"] = "true"
    return config


def files_config(record: Container, images: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The part of config.json that tells what a container's files are: its root, and what is mounted in it."""
    return {
        "ociVersion": "1.2.0",
        "process": {"args": ["true"], "cwd": "/"},
        "root": {"path": "rootfs", "readonly": record.host.readonly_rootfs},
        "mounts": [
            _user_mount(m, (images or {}).get(m.destination), mapped=False) for m in record.mounts if m.type != "tmpfs"
        ],
        "linux": {"namespaces": [{"type": "mount"}]},
    }


def exec_process(record: Container, request: ExecRequest, console_size: tuple[int, int] | None) -> dict[str, Any]:
    """The `process` object of an exec. Raises Invalid."""
    security = resolve_security(record.host)
    capabilities = list(defaults.ALL_CAPABILITIES) if request.privileged else security.capabilities
    env = merge_env(record.config.env or [], request.env or [])
    process = _process(env, request.cmd or [], record, capabilities, tty=request.tty)
    if request.user:
        process["user"] = _user(request.user, record.host.group_add or [])
    if request.working_dir:
        if not request.working_dir.startswith("/"):
            raise Invalid(
                f"the working directory {request.working_dir[:200]!r} is no absolute path", code="workdir-invalid"
            )
        process["cwd"] = request.working_dir
    process["oomScoreAdj"] = record.host.oom_score_adj  # not that of the engine, which has a lower one
    process["terminal"] = request.tty
    process["noNewPrivileges"] = security.no_new_privileges
    if console_size and any(console_size):
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return process


def _process(
    env: Sequence[str], args: Sequence[str], record: Container, capabilities: Sequence[str], *, tty: bool | None = None
) -> dict[str, Any]:
    tty = record.config.tty if tty is None else tty
    names = {e.partition("=")[0] for e in env}
    limits = record.host.ulimits or []
    rlimits = [{"type": f"RLIMIT_{u.name.upper()}", "soft": u.soft, "hard": u.hard} for u in limits]
    base = [e for e in (f"HOSTNAME={record.config.hostname}", "TERM=xterm" if tty else "") if e]
    return {
        "args": list(args),
        "env": [*(e for e in base if e.partition("=")[0] not in names and not e.endswith("=")), *env],
        "cwd": record.config.working_dir or "/",
        "user": _user(record.config.user, record.host.group_add or []),
        "capabilities": defaults.capabilities(list(capabilities)),
        "oomScoreAdj": record.host.oom_score_adj,
        **({"rlimits": rlimits} if rlimits else {}),
    }


def _user(user: str, groups: Sequence[str]) -> dict[str, Any]:
    # Names are looked up in the container's own /etc/passwd, which only init can see: it resolves them.
    return {"uid": 0, "gid": 0, "username": user or "0", "additionalGroups": list(groups)}


def _mounts(
    record: Container,
    files: Mapping[str, str],
    images: Mapping[str, Mapping[str, Any]],
    shared: Mapping[str, str],
) -> list[dict[str, Any]]:
    host = record.host
    shm = host.shm_size or defaults.SHM_SIZE_BYTES
    taken = {m.destination for m in record.mounts}
    out = [m for m in defaults.mounts(shm, cgroup_writable=host.privileged) if m["destination"] not in taken]
    out = _ipc_mounts(out, host.ipc_mode, shared)
    if last_group(record.id_maps) < _TTY_GROUP:
        for m in out:
            m["options"] = [o for o in m["options"] if o != f"gid={_TTY_GROUP}"]
    if host.privileged:
        for m in out:
            if m["destination"] == "/sys":
                m["options"] = [o for o in m["options"] if o != "ro"]
    ours = []
    for destination, source in files.items():
        if destination not in taken:
            options = ["rbind", "rprivate", "ro"] if host.readonly_rootfs else ["rbind", "rprivate"]
            if record.id_maps is not None:
                options.append("idmap")
            ours.append({"destination": destination, "type": "bind", "source": source, "options": options})
    ours += [_user_mount(m, images.get(m.destination), mapped=record.id_maps is not None) for m in record.mounts]
    # What lies deeper comes later: a volume at /etc must not hide /etc/hosts.
    return [*out, *sorted(ours, key=lambda m: m["destination"].count("/"))]


def _ipc_mounts(mounts: list[dict[str, Any]], mode: str, shared: Mapping[str, str]) -> list[dict[str, Any]]:
    """Shared memory that fits the IPC namespace: none, another container's, the host's, or (as it was) one's own."""
    if mode == "none":
        return [m for m in mounts if m["destination"] != "/dev/shm"]  # noqa: S108
    if SHARED_MEMORY in shared:
        theirs = {"type": "proa-shm-of", "source": shared[SHARED_MEMORY]}
        return [{**m, **theirs, "options": m["options"][:3]} if m["destination"] == "/dev/shm" else m for m in mounts]  # noqa: S108
    if mode != "host":
        return mounts
    out = []
    for mount in mounts:
        if mount["destination"] in ("/dev/shm", "/dev/mqueue"):  # noqa: S108
            if not os.path.isdir(mount["destination"]):
                continue
            options = ["rbind", "rprivate", "nosuid", "noexec", "nodev"]
            mount = {**mount, "type": "bind", "source": mount["destination"], "options": options}
        out.append(mount)
    return out


def _secret_mount(target: str, source: str, *, mapped: bool) -> dict[str, Any]:
    options = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec", *(["idmap"] if mapped else [])]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _user_mount(point: MountPoint, image: Mapping[str, Any] | None, *, mapped: bool) -> dict[str, Any]:
    if point.type == "tmpfs":
        options = ["nosuid", "nodev", "noexec", *[o for o in point.mode.split(",") if o]]
        for positive, negative in (("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec")):
            if positive in options:
                options = [o for o in options if o not in (positive, negative)]
        if not point.rw:
            options.append("ro")
        return {"destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = [f"{defaults.SUBPATH}={point.subpath}"] if point.subpath else []
    if image is not None:
        return {"destination": point.destination, **image, "options": [*image["options"], *options, "ro"]}
    options += ["rbind" if point.recursive else "bind", point.propagation or "rprivate"]
    if not point.rw:
        # Docker makes the mounts below read-only, too, since 25.0, except where they come and go with the host's.
        below = point.recursive_ro and point.propagation in ("", "private", "rprivate")
        options.append("rro" if below else "ro")
    if point.chown:
        options.append(defaults.CHOWN)
    # A volume is the containers' own; a directory of the host's is shown as it is, unless asked otherwise.
    if mapped and (point.type == "volume" or "idmap" in point.mode.split(",")):
        options.append("idmap")
    return {"destination": point.destination, "type": "bind", "source": point.source, "options": options}


def _sysctls(record: Container, joined: Joined) -> dict[str, str]:
    out = {**defaults.NETWORK_SYSCTLS, **joined.sysctls} if joined.namespace is None else {}
    if "net.ipv4.ping_group_range" in out:
        # The kernel takes only groups that exist in the namespace.
        out["net.ipv4.ping_group_range"] = f"0 {last_group(record.id_maps)}"
    out.update(record.host.sysctls or {})
    return out
