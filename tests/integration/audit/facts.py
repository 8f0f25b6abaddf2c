"""What a container is and may do, as it sees itself: collected by one script, read into a flat table."""

from __future__ import annotations

import re
from pathlib import Path

# Each section is printed with its name before it. Everything here is busybox, and /audit the compiled prober.
SCRIPT = r"""
echo @status; cat /proc/self/status
echo @mounts; cat /proc/self/mountinfo
echo @limits; cat /proc/self/limits
echo @devices; cd /dev; ls -ln | tail -n +2; cd /
echo @environment; env
echo @cgroup; cut -d: -f3 /proc/self/cgroup | sort -u
echo @scores; cat /proc/self/oom_score_adj
echo @namespaces; for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done
echo @masked
for p in acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats; do
  if [ -d /proc/$p ]; then echo "$p entries $(ls /proc/$p | wc -l)"
  elif [ -e /proc/$p ]; then echo "$p bytes $(head -c 100 /proc/$p 2>/dev/null | wc -c)"; else echo "$p none"; fi
done
echo @writable
for p in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/overcommit_memory /proc/sysrq-trigger \
  /proc/sys/net/ipv4/ip_forward /proc/irq/default_smp_affinity /proc/bus/x /proc/fs/x /sys/kernel/x /sys/fs/cgroup/x \
  /sys/class/net/lo/mtu; do
  # Opened without truncation, and nothing is written.
  if (: 3<>"$p") 2>/dev/null; then echo "$p opens"; else echo "$p refused"; fi
done
echo @nodes
for d in "mem c 1 1" "kmsg c 1 11" "fuse c 10 229" "loop b 7 0" "sda b 8 0" "tun c 10 200" "null2 c 1 3"; do
  set -- $d
  if mknod /tmp/$1 $2 $3 $4 2>/dev/null; then
    if (: </tmp/$1) 2>/dev/null; then echo "$1 made and opened"; else echo "$1 made"; fi
  else echo "$1 refused"; fi
done
echo @kernel
for n in net.ipv4.ping_group_range net.ipv4.ip_unprivileged_port_start kernel.shmmax; do
  echo "$n $(cat /proc/sys/$(echo $n | tr . /))"
done
echo @calls; /audit
"""

_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed_list"),
)
_ID = re.compile(r"[0-9a-f]{12,64}")
# Where layers and generated files lie, and what the machine's own file system is mounted with.
_OWN_OPTIONS = ("lowerdir", "upperdir", "workdir")


def read(said: str) -> dict[str, str]:
    """`section key` -> value."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in said.splitlines():
        if line.startswith("@"):
            name = line[1:]
        else:
            sections.setdefault(name, []).append(line)
    out: dict[str, str] = {}
    for line in sections["status"]:
        key, _, value = line.partition(":\t")
        if key in _STATUS:
            out[f"status {key}"] = value.strip()
    for line in sections["mounts"]:
        out |= _mount(line)
    for line in sections["limits"][1:]:
        out[f"limit {line[:26].strip()}"] = " ".join(line[26:].split())
    for line in sections["devices"]:
        fields = line.split()
        what = " ".join(fields[9:]) if line[0] == "l" else fields[4] + fields[5] if line[0] in "bc" else ""
        place = 8 if line[0] in "ld" else 9
        out[f"device {fields[place]}"] = f"{fields[0]} {fields[2]}:{fields[3]} {what}".strip()
    for line in sections["environment"]:
        key, _, value = line.partition("=")
        out[f"environment {key}"] = _ID.sub("ID", value)
    out["cgroup paths"] = _ID.sub("ID", " ".join(sections["cgroup"]))
    out["oom_score_adj"] = sections["scores"][0]
    for line in sections["namespaces"]:
        kind, _, number = line.partition(":")
        host = Path(f"/proc/self/ns/{kind}").readlink().name.partition(":")[2]
        out[f"namespace {kind}"] = "the host's" if number == host else "its own"
    for section in ("masked", "writable", "nodes", "kernel"):
        for line in sections[section]:
            key, _, value = line.partition(" ")
            out[f"{section} {key}"] = value
    for line in sections["calls"]:
        number, _, result = line.partition(" ")
        out[f"call {number}"] = result
    return out


def _mount(line: str) -> dict[str, str]:
    fields = line.split()
    dash = fields.index("-")
    target, kind = fields[4], fields[dash + 1]
    shown = set(fields[5].split(","))
    if target.startswith("/etc/"):
        return {f"mount {target}": f"bind {' '.join(sorted(shown))}"}
    # Names and sizes that the file system tells; both engines' atime rules are the kernel's default.
    settings = {o for o in fields[dash + 3].split(",") if o.partition("=")[0] not in (*_OWN_OPTIONS, "rw", "ro")}
    propagation = {f.partition(":")[0] for f in fields[6:dash]}
    return {f"mount {target}": f"{kind} {' '.join(sorted(shown | settings | propagation))}"}
