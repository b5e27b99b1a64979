"""A machine of the tests' own, to see that nothing of a lab is left on it: everything on it can be compared.

A child in new namespaces stands for the real host: only what the test starts runs there, its mounts and links are its own,
and what is written below /etc, /run and /var goes to a layer that is looked through. Beside the labs there is a Docker
host that is not ours, with names that ours have too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux import mounting, rtwrite, syscalls
from doctor.runtime.process import set_title

if TYPE_CHECKING:
    from collections.abc import Callable

_RULES = "*filter\n:DOCKER - [0:0]\n-A FORWARD -o docker0 -j DOCKER\n-A DOCKER -d 172.17.0.2/32 -j ACCEPT\nCOMMIT\n"
_DECOYS = (
    ("dockerd", ("/usr/bin/dockerd", "-H", "fd://")),
    ("containerd-shim", ("/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", "decoy")),
    ("doctor-lab", ("doctor-lab", "lab1")),
)
_LAYERED = ("/etc", "/var", "/run")


class State(NamedTuple):
    """What of a machine is compared."""

    processes: frozenset[str]
    mounts: str
    links: tuple[tuple[int, str], ...]
    sockets: frozenset[str]
    groups: frozenset[str]


def state() -> State:
    """Look at everything a lab might leave. Raises OSError."""
    unix = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    return State(
        frozenset(name for name in os.listdir("/proc") if name.isdigit()),  # noqa: PTH208 - names
        Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
        tuple(socket.if_nameindex()),
        frozenset(line.split(" ", 7)[-1] for line in unix if "doctor-lab" in line),
        frozenset(str(one) for one in Path("/sys/fs/cgroup").glob("*/doctor-lab.*")),
    )


def written(upper: str) -> str:
    """Give a digest of all files of a layer: names, kinds, sizes, contents."""
    digest = hashlib.sha256()
    for folder, names, files in os.walk(upper):
        names.sort()
        for name in sorted(files) + names:
            path = Path(folder, name)
            about = path.lstat()
            digest.update(f"{path} {about.st_mode} {about.st_size if path.is_file() else 0}\n".encode())
            if path.is_file() and not path.is_symlink():
                digest.update(path.read_bytes())
    return digest.hexdigest()


def rules() -> str:
    """Give both families' rules and the sysctls of the network that labs set."""
    saved = [
        line
        for tool in ("iptables-save", "ip6tables-save")
        if shutil.which(tool)
        for line in subprocess.run([tool], check=False, capture_output=True, text=True).stdout.splitlines()
        if not line.startswith("#")
    ]
    values = [
        Path(f"/proc/sys/net/{name}").read_text(encoding="ascii")
        for name in ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv4/ip_local_port_range")
    ]
    return "\n".join([*saved, *values])


def settled(before: State, seconds: float = 10.0) -> State:
    """Wait until the machine is as it was, at most so long; gives the last look."""
    until = time.monotonic() + seconds
    while True:
        reap()
        now = state()
        if now == before or time.monotonic() > until:
            return now
        time.sleep(0.002)


def reap() -> None:
    """Reap what has ended: we are the first process here, and orphans are ours."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def within(function: Callable[[str], object], tmp: Path) -> int:
    """Call a function on a machine of its own, with the layer that takes what is written; gives its exit code."""
    from doctor.runtime import userns

    syscalls.libc()
    userns.inside()
    middle = os.fork()
    if middle:
        return os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1])
    code = 70
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
        first = os.fork()
        if first:
            code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
            os._exit(code if code >= 0 else 71)
        mounting.propagation("/", mounting.MS_REC | mounting.MS_PRIVATE)
        mounting.mount("proc", "/proc", "proc")
        upper = _layers(tmp)
        _decoy()
        left = function(upper)
        code = left if isinstance(left, int) else 0
    except BaseException:  # noqa: BLE001 - a child leaves here
        import traceback

        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def _layers(tmp: Path) -> str:
    place = tmp / "layers"
    place.mkdir()
    mounting.mount("layers", str(place), "tmpfs")
    for folder in _LAYERED:
        upper, work = place / f"upper{folder}", place / f"work{folder}"
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        data = f"lowerdir={folder},upperdir={upper},workdir={work}"
        mounting.mount("overlay", folder, "overlay", 0, data)
    return str(place)


def _decoy() -> None:
    """Be a Docker host that is not ours: a bridge, rules, processes, a mount and a socket with names that ours have."""
    with rtwrite.Batch() as batch:
        batch.up(socket.if_nametoindex("lo"))
        batch.bridge("docker0")
        batch.commit()
        index = socket.if_nametoindex("docker0")
        batch.address(index, "172.17.0.1/16")
        batch.up(index)
        batch.commit()
    if shutil.which("iptables-restore"):
        subprocess.run(["iptables-restore"], input=_RULES, text=True, check=True)
    Path("/run/docker/netns").mkdir(parents=True)
    mounting.mount("lab", "/run/docker/netns", "tmpfs")
    for comm, argv in _DECOYS:
        if os.fork() == 0:
            set_title(comm, argv)
            while True:
                time.sleep(1000)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind("\0doctor-lab-0-decoy")
    _kept.append(sock)


_kept: list[socket.socket] = []
