"""config.json -> the list of steps that makes a container, or one more process in it.

Everything that can be refused is refused here, before any process exists. The order of steps is runc's
(libcontainer/standard_init_linux.go, rootfs_linux.go), which a decade of advisories has settled.
"""

from __future__ import annotations

import os
import stat

from proa.errors import Invalid, Unsupported
from proa.linux import process as p
from proa.runtime import check, defaults
from proa.runtime.mount_options import PROPAGATION, parse_mount_options
from proa.runtime.spec import (
    Hooks,
    Linux,
    MountPoint,
    Process,
    RootMount,
    Spec,
    parse_process,
    parse_root_mounts,
    parse_spec,
)
from proa.runtime.steps import (
    attributes,
    credentials,
    devices,
    images,
    isolation,
    lifecycle,
    masks,
    mounts,
    ownership,
    rootfs,
    sharing,
)
from proa.runtime.steps.command import CloseFiles, EnterWorkingDirectory, Execute
from proa.runtime.steps.step import Step
from proa.runtime.userns import Mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["Plan", "compile_exec_plan", "compile_plan", "compile_root"]

_BIND_TYPES = ("bind", "rbind", "none", "")


class Plan:
    """Steps, and what the launcher must prepare for them.

    steps:            in order; the launcher puts joining cgroups and namespaces, which need its fds, before them.
    namespaces:       CLONE_NEW* kinds to make.
    join:             (kind, path) of namespaces to join.
    cgroup_namespace: whether the process sees its cgroups as the root.
    terminal:         whether the standard streams are a new terminal.
    below_init:       whether process 1 is the reaping init and the user process its child.
    user:             the maps of the user namespace to make, if any; one to join is in `join`.
    time_offsets:     what a new time namespace's offsets are set to; empty for none.
    early:            steps to do before namespaces are joined.
    can_share:        whether the steps may run in the memory of the process that starts it: none waits for that one, or
                      forks, or may be killed by a filter of the user's, which would end both.
    """

    __slots__ = (
        "below_init",
        "can_share",
        "cgroup_namespace",
        "early",
        "join",
        "namespaces",
        "steps",
        "terminal",
        "time_offsets",
        "user",
    )

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        namespaces: int = 0,
        join: Sequence[tuple[str, str]] = (),
        cgroup_namespace: bool = False,
        terminal: bool = False,
        below_init: bool = False,
        user: Mappings | None = None,
        early: Sequence[Step] = (),
        time_offsets: bytes = b"",
        can_share: bool = False,
    ) -> None:
        self.steps = tuple(steps)
        self.namespaces = namespaces
        self.join = tuple(join)
        self.cgroup_namespace = cgroup_namespace
        self.terminal = terminal
        self.below_init = below_init
        self.user = user
        self.early = tuple(early)
        self.time_offsets = time_offsets
        self.can_share = can_share

    def describe(self) -> list[str]:
        """One line per step, for people."""
        return [step.describe() for step in self.steps]


def compile_plan(
    config: Mapping[str, Any], rootfs_mounts: Sequence[Any], *, listener_fd: int = -1, kept_fds: int = 0
) -> Plan:
    """The plan of a container.

    config:        a decoded OCI config.json, with the extensions that `spec` tells of.
    rootfs_mounts: the mounts (type, source, options; mappings or objects) that make its root, from a snapshotter; one.
    listener_fd:   a listening socket: the container is only created, and waits there to be started (`AwaitStart`).
    kept_fds:      how many descriptors after the standard streams the program inherits.
    Raises Invalid for a config that contradicts itself or would open the host to the container, Unsupported for
    features proa lacks.
    """
    spec = parse_spec(config)
    check.check_spec(spec, created_first=listener_fd >= 0)
    linux = spec.linux
    made, joined = check.sort_namespaces(linux.namespaces)
    own = made | joined.keys()
    steps: list[Step] = _oom_steps(spec.process)
    if "user" in own:
        steps.append(isolation.BecomeRoot())
    root = _root_step(rootfs_mounts, slave=linux.rootfs_propagation in ("slave", "rslave"))
    steps += [rootfs.SeparateMounts(_shared_binds(spec.mounts)), root]
    if "network" in made:
        steps.append(isolation.LoopbackUp())
    late_readonly = [] if not spec.root.readonly else ["/"]
    dev_bound = False
    for mount in spec.mounts:
        step, defer = _mount_step(mount, new_cgroup_namespace="cgroup" in made)
        steps.append(step)
        if defer:
            late_readonly.insert(0, mount.destination)
        dev_bound = dev_bound or (mount.destination == "/dev" and isinstance(step, mounts.Bind))
    if not dev_bound:
        steps += [devices.MakeDevices(_nodes(linux)), devices.LinkDevices()]
    hooks = spec.hooks or Hooks()
    hooked = bool(hooks.prestart or hooks.create_runtime or hooks.create_container or hooks.start_container)
    if hooked:
        steps.append(lifecycle.AwaitHooks())
    if hooks.create_container:
        steps.append(lifecycle.RunHooks("createContainer", check.hooks(hooks.create_container)))
    steps += [rootfs.PivotRoot(), rootfs.ReopenNull()]
    if linux.rootfs_propagation and "slave" not in linux.rootfs_propagation:  # that is how it was mounted
        spread, recursive = PROPAGATION[linux.rootfs_propagation]
        steps.append(rootfs.SetRootPropagation(spread, recursive=recursive))
    process = spec.process
    steps += _identity_steps(process)
    if any(defaults.CHOWN in mount.options for mount in spec.mounts):
        steps.append(ownership.GiveMounts())
    steps.append(credentials.CreateWorkingDirectory(process.cwd))
    steps += _terminal_steps(process, console=not dev_bound)
    steps += [rootfs.RemountReadonly(path) for path in late_readonly]
    if "uts" in made and (spec.hostname or spec.domainname):
        steps.append(isolation.SetNames(spec.hostname, spec.domainname))
    if linux.sysctl:
        optional = frozenset(defaults.NETWORK_SYSCTLS)
        steps.append(attributes.SetSysctls(check.check_sysctls(linux.sysctl, own), optional))
    if linux.readonly_paths:
        steps.append(masks.ReadonlyPaths(linux.readonly_paths))
    if linux.masked_paths:
        steps.append(masks.MaskPaths(linux.masked_paths))
    below_init = spec.annotations.get("proa.init") == "true"
    if below_init and "pid" not in made:
        raise Invalid("an init needs a pid namespace of its own", code="invalid-config")
    env = check.environment(process.env)
    if listener_fd >= 0:
        steps += [lifecycle.FindCommand(process.args[0], dict(env)["PATH"]), lifecycle.AwaitStart(listener_fd)]
    steps += _final_steps(process, spec, env, below_init=below_init, kept_fds=kept_fds)
    if hooks.start_container:
        steps.insert(-1, lifecycle.RunHooks("startContainer", check.hooks(hooks.start_container)))
    flags = 0
    for kind in made - {"cgroup", "user"}:
        flags |= isolation.NAMESPACE_FLAGS[kind]
    return Plan(
        steps,
        namespaces=flags,
        join=tuple(joined.items()),
        cgroup_namespace="cgroup" in made,
        terminal=process.terminal,
        below_init=below_init,
        user=check.user_mappings(linux, made),
        time_offsets=check.time_offsets(linux.time_offsets, made),
        can_share=linux.seccomp is None and not hooked and listener_fd < 0,
    )


def compile_exec_plan(config: Mapping[str, Any], process_config: Mapping[str, Any], *, kept_fds: int = 0) -> Plan:
    """The plan of one more process in the running container of `config`; arguments and errors as of `compile_plan`."""
    spec = parse_spec(config)
    process = parse_process(process_config)
    check.check_process(process)
    made, joined = check.sort_namespaces(spec.linux.namespaces)
    flags = p.CLONE_NEWNS
    for kind in (made | joined.keys()) - {"pid", "mount"}:
        flags |= isolation.NAMESPACE_FLAGS[kind]
    steps: list[Step] = [isolation.BecomeRoot()] if flags & p.CLONE_NEWUSER else []
    steps += _identity_steps(process)
    steps += _terminal_steps(process, console=False)
    early = _oom_steps(process)
    if (affinity := process.exec_cpu_affinity) is not None:
        if affinity.initial:
            early.append(attributes.SetAffinity(check.processors(affinity.initial)))
        if affinity.final:
            steps.append(attributes.SetAffinity(check.processors(affinity.final)))
    steps += _final_steps(process, spec, check.environment(process.env), below_init=False, kept_fds=kept_fds)
    return Plan(steps, namespaces=flags, terminal=process.terminal, early=early)


def _oom_steps(process: Process) -> list[Step]:
    return [] if process.oom_score_adj is None else [attributes.SetOomScore(process.oom_score_adj)]


def compile_root(config: Mapping[str, Any], rootfs_mounts: Sequence[Any]) -> list[Step]:
    """The steps that only make a container's root file system and enter it; raises as `compile_plan` does.

    For processes of the engine's own in a new mount namespace: no devices, no limits, no program.
    """
    spec = parse_spec(config)
    check.check_spec(spec, created_first=False)
    steps: list[Step] = [rootfs.SeparateMounts(_shared_binds(spec.mounts)), _root_step(rootfs_mounts)]
    steps += [_mount_step(mount, new_cgroup_namespace=False)[0] for mount in spec.mounts]
    steps.append(rootfs.PivotRoot())
    if spec.root.readonly:
        steps.append(rootfs.RemountReadonly("/"))
    return steps


def _shared_binds(points: Sequence[MountPoint]) -> list[tuple[str, str, bool]]:
    found = []
    for point in points:
        if point.type not in _BIND_TYPES:
            continue
        options = parse_mount_options(point.options, point.destination)
        if options.shared:
            found.append((point.destination, point.source, options.recursive or point.type == "rbind"))
    return found


def _root_step(root_mounts: Sequence[Any], *, slave: bool = False) -> Step:
    parsed: list[RootMount] = parse_root_mounts(list(root_mounts))
    if len(parsed) != 1 or parsed[0].type not in ("overlay", "bind", "rbind", "none"):
        raise Unsupported("the root file system must be one overlay or bind mount", code="rootfs-mounts")
    root = parsed[0]
    for option in (root.source, *root.options):
        check.check_text(option, "rootfs")
    return rootfs.MountRoot(root.type, root.source, root.options, slave=slave)


def _mount_step(point: MountPoint, *, new_cgroup_namespace: bool) -> tuple[Step, bool]:
    """The step of one mount, and whether it must be made read-only only after devices were made in it."""
    destination = point.destination
    if point.type == "overlay":
        layers = [o for o in point.options if "=" in o and not o.startswith(f"{defaults.SUBPATH}=")]
        rest = parse_mount_options([o for o in point.options if o not in layers], destination)
        check.check_mount(point, bind=False)
        return images.MountOverlay(destination, layers, rest), False
    options = parse_mount_options(point.options, destination)
    if point.type == sharing.FROM_NAMESPACE:
        return sharing.ShareMemory(point.source, destination, options), False
    check.check_mount(point, bind=options.bind or point.type in _BIND_TYPES)
    if options.remount:
        return mounts.Remount(destination, options), False
    if options.bind or point.type in _BIND_TYPES:
        if point.type == "rbind" and not options.recursive:
            options = options._replace(recursive=True)
        own = bool(point.uid_mappings or point.gid_mappings)
        mappings = check.mappings(point.uid_mappings, point.gid_mappings) if own else None
        return mounts.Bind(point.source, destination, options, mappings), False
    if options.idmap:
        raise Unsupported(f"only binds can be idmapped ({destination})", code="mount-option", subject=destination)
    if point.type in ("cgroup", "cgroup2"):
        return mounts.MountCgroup(destination, options, new_namespace=new_cgroup_namespace), False
    defer = destination == "/dev" and options.readonly
    return mounts.Mount(point.type, point.source, destination, options, defer_readonly=defer), defer


def _nodes(linux: Linux) -> list[devices.Node]:
    nodes: dict[str, devices.Node] = {
        path: (path, stat.S_IFCHR | 0o666, os.makedev(major, minor), 0, 0) for path, major, minor in defaults.DEVICES
    }
    kinds = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    for device in linux.devices:
        if device.type not in kinds:
            raise Invalid(f"device {device.path} has unknown type `{device.type}`", code="invalid-config")
        check.check_path(device.path, "device")
        number = 0 if device.type == "p" else os.makedev(device.major, device.minor)
        mode = stat.S_IMODE(0o666 if device.file_mode is None else device.file_mode)
        nodes[device.path] = (device.path, kinds[device.type] | mode, number, device.uid, device.gid)
    return list(nodes.values())


def _identity_steps(process: Process) -> list[Step]:
    user = process.user
    return [credentials.ResolveUser(user.username, user.additional_groups, user.uid, user.gid, user.additional_gids)]


def _terminal_steps(process: Process, *, console: bool) -> list[Step]:
    if not process.terminal:
        return [devices.OwnStreams()]
    size = process.console_size
    rows, columns = (size.height, size.width) if size else (0, 0)
    return [devices.OpenTerminal(rows, columns, console=console), devices.OwnStreams()]


def _final_steps(
    process: Process, spec: Spec, env: Sequence[tuple[str, str]], *, below_init: bool, kept_fds: int
) -> list[Step]:
    linux = spec.linux
    steps: list[Step] = []
    if process.rlimits:
        steps.append(attributes.SetLimits(check.limits(process.rlimits)))
    if process.io_priority is not None:
        steps.append(check.io_priority(process.io_priority))
    persona = check.persona(linux.personality)
    if persona is not None:
        steps.append(attributes.SetPersonality(persona))
    if process.scheduler is not None:
        steps.append(check.scheduler(process.scheduler))
    if spec.annotations.get("proa.keyring") != "inherited":
        steps.append(attributes.JoinKeyring("_ses.proa"))
    sets = check.capability_sets(process.capabilities)
    seccomp_step = check.seccomp_step(spec, sets.bounding)
    if process.no_new_privileges:
        steps.append(credentials.NoNewPrivileges())
    steps += [CloseFiles(kept_fds), EnterWorkingDirectory(process.cwd, last_try=False)]
    if seccomp_step is not None and not process.no_new_privileges:
        steps.append(seccomp_step)  # needs the privileges that go next
    umask = 0o022 if process.user.umask is None else process.user.umask
    steps += [
        credentials.DropBounding(sets.bounding),
        credentials.BecomeUser(sets.effective, sets.permitted, sets.inheritable, sets.ambient, umask),
        EnterWorkingDirectory(process.cwd, last_try=True),
    ]
    if seccomp_step is not None and process.no_new_privileges:
        steps.append(seccomp_step)
    steps.append(Execute(process.args, env, below_init=below_init))
    return steps
