"""One pass over /proc: who runs, in which network namespace; in full only for the engine and its containers.

The text is a tree record (`doctor.snapshot.TreeEntry`) whose paths are those below /proc. Of a process that is no part
of Docker only `stat`, without its name, and `ns/net` are kept: what else runs on the host is nobody's business.
"""

from __future__ import annotations

import os
import re

from doctor.lines import tree_line

ENGINE = frozenset(
    {"dockerd", "containerd", "docker-proxy", "docker-init", "runc", "crun", "rootlesskit", "slirp4netns", "vpnkit"}
)
"""Commands (as in /proc/PID/comm) that are part of an engine; shims are known by the beginning of theirs."""

NAMESPACES = ("cgroup", "ipc", "mnt", "pid", "user", "uts")
"""Beside net, which is read of every process: of daemons alone, 200 containers have a thousand processes."""

_DAEMONS = frozenset({"dockerd", "containerd"})

_CONTAINER = re.compile(rb"[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$|\n)")
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SMALL = 4096
_PART = 2048
"""Bytes from which on the kernel may have given less than there is."""
_LARGE = 1 << 15


def scan() -> str:
    """Read /proc/PID of every process, ordered by pid; a process that goes meanwhile is left out.

    Command lines are as they are: whoever keeps them scrubs them. Raises OSError when /proc cannot be listed.
    """
    lines: list[str] = []
    proc = os.open("/proc", _OPEN | os.O_DIRECTORY)
    try:
        for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):  # noqa: PTH208 - names
            _process(proc, pid, lines)
    finally:
        os.close(proc)
    return "".join(lines)


def _process(proc: int, pid: str, lines: list[str]) -> None:
    try:
        stat = read(f"{pid}/stat", _SMALL, proc)
        group = read(f"{pid}/cgroup", _LARGE, proc)
    except OSError:
        return
    name = stat[stat.find(b"(") + 1 : stat.rfind(b")")].decode("utf-8", "replace")
    ours = name in ENGINE or name.startswith("containerd-shim") or _CONTAINER.search(group)
    lines.append(_line(f"{pid}/stat", stat if ours else pid.encode() + b" (-" + stat[stat.rfind(b")") :]))
    lines.append(_link(proc, f"{pid}/ns/net"))
    if not ours:
        return
    lines.append(_line(f"{pid}/cgroup", group))
    try:
        lines.append(_line(f"{pid}/cmdline", read(f"{pid}/cmdline", _LARGE, proc)))
    except OSError as error:
        lines.append(tree_line(f"{pid}/cmdline", "!", 0.0, str(error.strerror)))
    if name in _DAEMONS:
        lines += [_link(proc, f"{pid}/ns/{kind}") for kind in NAMESPACES]
    if name == "dockerd":
        lines += _threads(proc, pid)


def read(path: str, limit: int = _SMALL, proc: int | None = None) -> bytes:
    """Read a file of the kernel's, below an open directory where one is given. Raises OSError."""
    handle = os.open(path, _OPEN, dir_fd=proc)
    try:
        data = os.read(handle, limit)
        # The kernel gives a page or so at a time; most files are shorter, and one call is enough to know.
        while _PART <= len(data) < limit and (more := os.read(handle, limit - len(data))):
            data += more
    finally:
        os.close(handle)
    return data


def _line(path: str, data: bytes) -> str:
    return tree_line(path, "f", 0.0, data.decode("utf-8", "replace"))


def _link(proc: int, path: str) -> str:
    try:
        return f"{path}\tl\t0.000\t{os.readlink(path, dir_fd=proc)}\n"
    except OSError as error:
        return tree_line(path, "!", 0.0, (error.strerror or "").lower())


def _threads(proc: int, pid: str) -> list[str]:
    """Read the state of each thread of dockerd, and the kernel function that one which waits for a disk is in."""
    lines = []
    try:
        lines.append(_line(f"{pid}/status", read(f"{pid}/status", _SMALL, proc)))
        for thread in sorted(os.listdir(f"/proc/{pid}/task")):  # noqa: PTH208 - names
            stat = read(f"{pid}/task/{thread}/stat", _SMALL, proc)
            lines.append(_line(f"{pid}/task/{thread}/stat", stat))
            if stat[stat.rfind(b")") + 2 : stat.rfind(b")") + 3] == b"D":
                lines.append(_line(f"{pid}/task/{thread}/wchan", read(f"{pid}/task/{thread}/wchan", 256, proc)))
    except OSError:
        pass  # a thread that went away: what is there is enough
    return lines
