"""The root of a lab's host: the machine's programs, read-only or copied on write, and everything else our own.

A tmpfs holds it: /usr is an overlay on the machine's, with the programs and units of a real Docker taken out; the Python
that runs us is bound read-only where it is; /etc, /var, /run, /tmp and /dev are new; /proc and /sys are those of the lab's
own namespaces. What is no network's in /proc/sys is read-only: it is the machine's. So a lab is the same on every machine,
and nothing that is written in it is written outside.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux import mounting
from doctor.linux.mounting import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC
from doctor.linux.syscalls import pivot_root
from doctor.runtime import cgroups, hostfiles, mounts

if TYPE_CHECKING:
    from collections.abc import Mapping

_STAGES = ("/mnt", "/media", "/srv", "/opt", "/home", "/var", "/tmp")  # noqa: S108 - a place to mount on, no file
"""Directories to build on, one of which is there. What is below is hidden, in this mount namespace only."""

_HIDDEN_PROGRAMS = (
    "containerd",
    "containerd-shim",
    "containerd-shim-runc-v1",
    "containerd-shim-runc-v2",
    "crun",
    "ctr",
    "docker",
    "docker-compose",
    "docker-init",
    "docker-proxy",
    "dockerd",
    "dockerd-rootless.sh",
    "nerdctl",
    "podman",
    "rootlesskit",
    "runc",
)
_PROGRAM_FOLDERS = ("bin", "sbin", "local/bin", "local/sbin", "libexec/docker", "lib/docker")
_UNITS = ("docker.service", "docker.socket", "containerd.service")
_HIDDEN_FOLDERS = ("lib/sysctl.d", "lib/systemd/network", "libexec/docker/cli-plugins", "lib/docker/cli-plugins")
"""Below /usr: what would tell of the machine, and not of the lab."""

_BOUND = (
    "alternatives",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "pki",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "ssl",
    "terminfo",
    "vim",
)
"""Of the machine's /etc, read-only: what its programs need to run."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_NO = MS_NOSUID | MS_NOEXEC | MS_NODEV


class Plan(NamedTuple):
    """What the root is to have: a host name, files and links by path, the bytes that all of it may take (0: half of memory).

    `programs` are names that run in the holder: each is a launcher in /usr/bin. `mode` of a file is 755 where it begins
    with `#!`.
    """

    hostname: str
    files: Mapping[str, str | bytes]
    links: Mapping[str, str]
    programs: tuple[str, ...]
    size: int = 0
    groups: bool = False


def build(plan: Plan) -> None:
    """Make the root and go into it: nothing of the machine's file systems can be reached from here on but what is bound.

    The caller is alone in new mount, pid and network namespaces. Raises OSError.
    """
    mounting.propagation("/", MS_REC | MS_PRIVATE)
    trees = {place: mounting.tree(place, recursive=True, flags=MS_RDONLY | MS_NOSUID) for place in _brought()}
    stage = next((place for place in _STAGES if Path(place).is_dir()), "/tmp")  # noqa: S108 - as above
    new = mounting.prepared("tmpfs", _options(plan.size), 0, "lab")
    proc = mounting.prepared("proc", (), _NO, "proc")
    sys_ = mounting.prepared("sysfs", (), _NO, "sysfs")
    pts = mounting.prepared("devpts", ("newinstance", "ptmxmode=0666", "mode=0620"), MS_NOSUID | MS_NOEXEC, "devpts")
    groups = cgroups.prepared(readonly=not plan.groups)
    devices = {name: mounting.tree(f"/dev/{name}") for name in _DEVICES if Path(f"/dev/{name}").exists()}
    shells = mounting.prepared("tmpfs", ("mode=1777",), _NO, "shm")
    queues = _queues()
    mounting.attach(new, stage)
    root = f"{stage}/root"
    os.mkdir(root, 0o755)  # noqa: PTH102 - a hundred of these
    mounting.mount(root, root, "", MS_BIND)
    _usr(stage, root, plan)
    _directories(root)
    _etc(root, plan)
    for place, handle in trees.items():
        _put(root, place, handle)
    os.chdir(root)
    pivot_root(".", ".")
    mounting.umount(".", mounting.MNT_DETACH)
    os.chdir("/")
    mounting.attach(proc, "/proc")
    mounting.attach(sys_, "/sys")
    _dev(devices, pts, shells, queues)
    for place, handle in groups:
        os.makedirs(place, exist_ok=True)  # noqa: PTH103 - as above
        mounting.attach(handle, place)
    _protect()
    for path, text in plan.files.items():
        write(path, text)
    for path, target in plan.links.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - as above
        os.symlink(target, path)  # noqa: PTH211 - as above


def write(path: str, text: str | bytes) -> None:
    """Write a file of the host, and the directories above it. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - a hundred of these
    data = text.encode() if isinstance(text, str) else text
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755 if data[:2] == b"#!" else 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)


def _options(size: int) -> tuple[str, ...]:
    return ("mode=0755", f"size={size}") if size else ("mode=0755",)


def _brought() -> list[str]:
    """List what is bound of the machine: the Python that runs us, this package, and /bin where it is no link."""
    wanted = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    wanted |= {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}  # noqa: PTH100, PTH120 - strings
    wanted |= {os.path.dirname(os.path.realpath(sys.executable))}  # noqa: PTH120 - as above
    wanted |= {place for place in sys.path if place and os.path.isdir(place) and "site-packages" in place}  # noqa: PTH112 - as above
    wanted |= {place for place in ("/bin", "/sbin", "/lib", "/lib64", "/lib32") if not Path(place).is_symlink()}
    found: list[str] = []
    for place in sorted(wanted):
        inside = any(f"{place}/".startswith(f"{other}/") for other in (*found, "/usr"))
        # What this user may not enter (the Python of root, when root was given up) is of no use to programs of the lab.
        if place != "/" and os.access(place, os.R_OK | os.X_OK) and not inside:
            found.append(place)
    return found


def _put(root: str, place: str, handle: int) -> None:
    os.makedirs(f"{root}{place}", exist_ok=True)  # noqa: PTH103 - strings
    mounting.attach(handle, f"{root}{place}")


def _usr(stage: str, root: str, plan: Plan) -> None:
    """Mount /usr: the machine's below, and above it what is hidden and what is ours."""
    upper, work = f"{stage}/usr", f"{stage}/work"
    for folder in (upper, work, f"{root}/usr"):
        os.mkdir(folder, 0o755)  # noqa: PTH102 - strings
    gone = [f"{folder}/{name}" for folder in _PROGRAM_FOLDERS for name in _HIDDEN_PROGRAMS]
    gone += [f"lib/systemd/system/{unit}" for unit in _UNITS]
    for folder in _HIDDEN_FOLDERS:
        with suppress(OSError):
            gone += [f"{folder}/{name}" for name in os.listdir(f"/usr/{folder}")]  # noqa: PTH208 - strings
    for path in gone:
        if os.path.lexists(f"/usr/{path}"):
            os.makedirs(os.path.dirname(f"{upper}/{path}"), exist_ok=True)  # noqa: PTH103, PTH120 - as above
            os.mknod(f"{upper}/{path}", stat.S_IFCHR, os.makedev(0, 0))
    for path, text in hostfiles.programs(plan.programs).items():
        with suppress(FileNotFoundError):
            os.unlink(f"{upper}/{path}")  # noqa: PTH108 - as above
        write(f"{upper}/{path}", text)
    mounts.mount_overlay(mounts.Overlay(("/usr",), upper, work), f"{root}/usr")
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        if os.path.islink(f"/{name}"):  # noqa: PTH114 - as above
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")  # noqa: PTH115, PTH211 - as above


def _directories(root: str) -> None:
    for name in hostfiles.DIRECTORIES:
        os.mkdir(f"{root}/{name}", 0o755)  # noqa: PTH102 - strings
    for name in ("tmp", "var/tmp", "run/lock"):
        os.chmod(f"{root}/{name}", 0o1777)  # noqa: PTH101, S103 - as on every host
    os.chmod(f"{root}/root", 0o700)  # noqa: PTH101 - as above
    os.symlink("/run", f"{root}/var/run")  # noqa: PTH211 - as above


def _etc(root: str, plan: Plan) -> None:
    for name in _BOUND:
        source = f"/etc/{name}"
        if os.path.isdir(source):  # noqa: PTH112 - strings
            os.mkdir(f"{root}{source}", 0o755)  # noqa: PTH102 - as above
        elif os.path.isfile(source):  # noqa: PTH113 - as above
            os.close(os.open(f"{root}{source}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        else:
            continue
        mounting.attach(mounting.tree(source, recursive=True, flags=MS_RDONLY), f"{root}{source}")
    for path, text in hostfiles.etc(plan.hostname).items():
        write(f"{root}{path}", text)
    os.symlink("/proc/self/mounts", f"{root}/etc/mtab")  # noqa: PTH211 - as above


def _dev(devices: dict[str, int], pts: int, memory: int, queues: int) -> None:
    mounting.mount("dev", "/dev", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k")
    for name, handle in devices.items():
        os.close(os.open(f"/dev/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        mounting.attach(handle, f"/dev/{name}")
    for name, handle in (("pts", pts), ("shm", memory), ("mqueue", queues)):
        os.mkdir(f"/dev/{name}", 0o755)  # noqa: PTH102 - strings
        if handle >= 0:
            mounting.attach(handle, f"/dev/{name}")
    for name, target in hostfiles.DEVICE_LINKS.items():
        os.symlink(target, f"/dev/{name}")  # noqa: PTH211 - as above


def _queues() -> int:
    try:
        return mounting.prepared("mqueue", (), _NO, "mqueue")
    except OSError:  # a kernel without CONFIG_POSIX_MQUEUE
        return -1


def _protect() -> None:
    """Make what belongs to the machine as a whole read-only: its sysctls, and the devices in /sys."""
    for place, own in (("/proc/sys", "/proc/sys/net"), ("/sys", "/sys/devices/virtual/net")):
        kept = mounting.tree(own) if Path(own).is_dir() else -1
        if place == "/proc/sys":
            mounting.bind(place, place, recursive=False)
        mounting.attributes(place, MS_RDONLY)
        if kept >= 0:
            mounting.attach(kept, own)
    trigger = "/proc/sysrq-trigger"
    if Path(trigger).exists():
        mounting.bind("/dev/null", trigger, recursive=False)
