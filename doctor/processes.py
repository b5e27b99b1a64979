"""One pass over /proc: who runs, in which network namespace; in full only for the engine and its containers.

The text is a tree record (`doctor.snapshot.TreeEntry`) whose paths are those below /proc. Of a process that is no part
of Docker only `stat`, without its name, and `ns/net` are kept: what else runs on the host is nobody's business.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.snapshot import tree_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.host import Host

ENGINE = frozenset(
    {"dockerd", "containerd", "docker-proxy", "docker-init", "runc", "crun", "rootlesskit", "slirp4netns", "vpnkit"}
)
"""Commands (as in /proc/PID/comm) that are part of an engine; shims are known by the beginning of theirs."""

_CONTAINER = re.compile(rb"[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$|\n)")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def scan(host: Host, scrub: Callable[[bytes, str], tuple[bytes, int]]) -> str:
    """Read /proc/PID of every process, ordered by pid; a process that goes meanwhile is left out."""
    lines: list[str] = []
    for pid in sorted((name for name in host.listdir("/proc") if name.isdigit()), key=int):
        try:
            stat = host.read(f"/proc/{pid}/stat", 4096)[0]
            group = host.read(f"/proc/{pid}/cgroup", 1 << 14)[0]
        except OSError:
            continue
        name = stat[stat.find(b"(") + 1 : stat.rfind(b")")].decode("utf-8", "replace")
        ours = name in ENGINE or name.startswith("containerd-shim") or _CONTAINER.search(group)
        lines.append(_line(f"{pid}/stat", stat if ours else pid.encode() + b" (-" + stat[stat.rfind(b")") :]))
        lines.append(_link(host, pid, "net"))
        if not ours:
            continue
        lines.append(_line(f"{pid}/cgroup", group))
        try:
            cmdline = host.read(f"/proc/{pid}/cmdline", 1 << 15)[0]
            lines.append(_line(f"{pid}/cmdline", scrub(cmdline, "cmdline")[0]))
        except OSError as error:
            lines.append(tree_line(f"{pid}/cmdline", "!", 0.0, str(error.strerror)))
        lines += [_link(host, pid, kind) for kind in NAMESPACES if kind != "net"]
        if name == "dockerd":
            lines += _threads(host, pid)
    return "".join(lines)


def _line(path: str, data: bytes) -> str:
    return tree_line(path, "f", 0.0, data.decode("utf-8", "replace"))


def _link(host: Host, pid: str, kind: str) -> str:
    try:
        return f"{pid}/ns/{kind}\tl\t0.000\t{host.readlink(f'/proc/{pid}/ns/{kind}')}\n"
    except OSError as error:
        return tree_line(f"{pid}/ns/{kind}", "!", 0.0, (error.strerror or "").lower())


def _threads(host: Host, pid: str) -> list[str]:
    """Read the state of each thread of dockerd, and the kernel function that one which waits for a disk is in."""
    lines = []
    try:
        status = host.read(f"/proc/{pid}/status", 4096)[0]
        lines.append(_line(f"{pid}/status", status))
        for thread in host.listdir(f"/proc/{pid}/task"):
            stat = host.read(f"/proc/{pid}/task/{thread}/stat", 4096)[0]
            lines.append(_line(f"{pid}/task/{thread}/stat", stat))
            if stat[stat.rfind(b")") + 2 : stat.rfind(b")") + 3] == b"D":
                waits = host.read(f"/proc/{pid}/task/{thread}/wchan", 256)[0]
                lines.append(_line(f"{pid}/task/{thread}/wchan", waits))
    except OSError:
        pass  # a thread that went away: what is there is enough
    return lines
