"""Where this host's daemon is and keeps its things: found before anything else is read, from its own command line.

The order of belief: the flags of the running dockerd, then daemon.json (the one its flags name), then the environment,
then the places that packages use (Debian, Docker CE, snap, rootless).
"""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from doctor.engine.options import OPTIONS, config_path, parse_flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doctor.host import Host

SNAP_CONFIG = "/var/snap/docker/current/config/daemon.json"
SNAP_DATA = "/var/snap/docker/common/var-lib-docker"
MAX_PATH = 4096
MANY_PATHS = 64
"""Paths of one configuration that are looked at: a bound for a file that means ill."""
PROGRAMS = ("runc", "containerd-shim-runc-v2", "docker-init", "docker-proxy")
"""What dockerd and its containerd start beside what the configuration names."""
PROGRAM_FOLDERS = (
    *("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin"),
    "/run/current-system/sw/bin",
)
"""Where programs are; the last is where NixOS has them all."""
USUAL_FOLDERS = (
    *PROGRAM_FOLDERS,
    *("/usr/local/libexec/docker", "/usr/libexec/docker", "/usr/local/lib/docker", "/usr/lib/docker"),
    "/opt/containerd/bin",
)
"""Where programs are looked for beside PATH: by dockerd (moby daemon/config/config_linux.go), and by containerd."""
CGROUPS_BY_SYSTEMD = "native.cgroupdriver=systemd"
"""What `exec-opts` says where systemd is to make the groups of containers."""
SYSTEMD_RUNS = "/run/systemd/system"
"""The directory by which runc tells whether systemd runs (sd_booted(3), runc libcontainer/cgroups/systemd)."""
OWN, CALLER = "~", "~caller"
"""How homes are written where docker(1) keeps contexts: that of this process, and that of who called sudo; no name is kept."""
DEFAULT_CONTEXT = "default"
"""The context that is this host's own daemon, and has no file."""
_IN_CONTAINER = re.compile(rb"[/-]([0-9a-f]{64})(?:\.scope)?(?=[/\n])")
"""The ids of containers in the control groups of a process (cgroups(7), /proc/PID/cgroup)."""
LOGS = (
    "/var/log/docker.log",
    "/var/log/dockerd.log",
    "/var/log/upstart/docker.log",
    "/var/snap/docker/common/log/docker.log",
)


class Places(Struct, frozen=True):
    """Paths and the address of one daemon. `pid` is 0 when no dockerd runs; `binary` is empty when none is in PATH."""

    pid: int
    argv: tuple[str, ...]
    binary: str
    config_file: str
    data_root: str
    exec_root: str
    pidfile: str
    log: str
    address: str
    looked: tuple[str, ...] = ()
    iptables: str = ""
    """What `iptables` stands for here: `iptables-nft` or `iptables-legacy`; empty when there is none."""
    other: str = ""
    """Another engine that is here instead (podman, containerd), for the message when Docker is not."""
    programs: dict[str, str] = {}
    """Programs that dockerd starts, by name: where each is found, or would be; empty when nobody looked."""
    searched: str = ""
    """The PATH of the dockerd that runs; empty when it may not be read."""
    paths: tuple[str, ...] = ()
    """What the configuration names, to be looked at: socket, pid file, data root, programs. All absolute."""

    tls: dict[str, str] = {}
    """The files that `tlscacert`, `tlscert` and `tlskey` name, by the option."""

    @property
    def names(self) -> dict[str, str]:
        """What stands for the placeholders of a source's target."""
        return {
            "config_file": self.config_file,
            "data_root": self.data_root,
            "exec_root": self.exec_root,
            "pidfile": self.pidfile,
            "log": self.log,
            "pid": str(self.pid),
        }

    @property
    def present(self) -> bool:
        """Whether there is a Docker engine on this machine: running, installed, or with data left behind."""
        return bool(self.pid or self.binary) or any(place.startswith("found ") for place in self.looked)


def find(host: Host, environ: Mapping[str, str]) -> Places:
    """Find the daemon. Reads /proc, a configuration file and a few directories; raises nothing."""
    pid, argv = _running(host)
    binary = _in_path(host, "dockerd")
    snap = not argv and _exists(host, SNAP_DATA)
    home = environ.get("HOME", "/root")
    rootless = f"{home}/.local/share/docker"
    arguments = argv[1:]
    config_file = config_path(arguments)
    if not argv and snap:
        config_file = SNAP_CONFIG
    elif argv and "--rootless" in argv and config_file == OPTIONS["config-file"].default:
        config_file = f"{home}/.config/docker/daemon.json"
    settings: dict[str, Any] = _settings(host, config_file)
    for flag in parse_flags(arguments):
        if OPTIONS[flag.key].type == "list":
            held = settings.setdefault(flag.key, [])
            if isinstance(held, list):
                held.append(flag.value)
        else:
            settings[flag.key] = flag.value

    def setting(key: str) -> str:
        value = settings.get(key)
        return value if isinstance(value, str) and value else OPTIONS[key].default

    data_root = settings.get("data-root") or settings.get("graph")
    if not isinstance(data_root, str):
        data_root = SNAP_DATA if snap else rootless if "--rootless" in argv else OPTIONS["data-root"].default
    runtime = environ.get("XDG_RUNTIME_DIR", "") if "--rootless" in argv else ""
    usual = f"unix://{runtime}/docker.sock" if runtime else "unix:///run/docker.sock"
    address = _address(settings.get("hosts"), environ.get("DOCKER_HOST", ""), usual, running=bool(pid))
    exec_root = setting("exec-root")
    searched = _search_path(host, pid)
    programs = {name: _program(host, name, searched) for name in PROGRAMS}
    tls = {key: path for key in ("tlscacert", "tlscert", "tlskey") if (path := _path(settings.get(key)))}
    return Places(
        pid=pid,
        argv=argv,
        binary=binary,
        config_file=config_file,
        data_root=_remapped(host, data_root) if settings.get("userns-remap") else data_root,
        exec_root=in_run(exec_root),
        pidfile=in_run(setting("pidfile")),
        log=_log(host, pid),
        address=address,
        looked=_looked(host, environ, address, data_root, binary, pid),
        iptables=_iptables(host),
        other=_other(host),
        programs=programs,
        searched=searched,
        paths=(
            *_named(host, settings, address, setting("pidfile"), data_root),
            *programs.values(),
            *_trusted(config_file, exec_root),
            *tls.values(),
        ),
        tls=tls,
    )


def find_running(host: Host) -> int:
    """Give the pid of the dockerd of this host, 0 where none runs here."""
    return _running(host)[0]


def in_run(path: str) -> str:
    """Spell a path below /var/run as the kernel does: it is a link to /run.

    >>> in_run("/var/run/docker.sock")
    '/run/docker.sock'
    """
    return path.removeprefix("/var") if path == "/var/run" or path.startswith("/var/run/") else path


def _named(host: Host, settings: dict[str, Any], address: str, pidfile: str, data_root: str) -> tuple[str, ...]:
    """Give the paths that the configuration names; of a program without a path, where it is found or would be."""
    runtimes = settings.get("runtimes")
    held = runtimes.values() if isinstance(runtimes, dict) else ()
    programs = [one.get("path") for one in held if isinstance(one, dict)]
    programs += [settings.get("userland-proxy-path"), settings.get("init-path")]
    asked = settings.get("exec-opts")
    by_systemd = isinstance(asked, list) and CGROUPS_BY_SYSTEMD in asked
    found = [in_run(address.removeprefix("unix://")), in_run(pidfile), data_root]
    named = [one for one in programs if isinstance(one, str) and 0 < len(one) < MAX_PATH]
    found += [one if one.startswith("/") else _in_path(host, one) or f"/usr/bin/{one}" for one in named]
    found += [SYSTEMD_RUNS] if by_systemd else []
    return tuple(dict.fromkeys(one for one in found if one.startswith("/")))[:MANY_PATHS]


def _path(value: object) -> str:
    """Give an absolute path, empty for what is none."""
    return value if isinstance(value, str) and value.startswith("/") and len(value) < MAX_PATH else ""


def _remapped(host: Host, data_root: str) -> str:
    """Give the directory UID.GID in which a dockerd with userns-remap keeps everything, where there is one and no other."""
    try:
        names = host.listdir(data_root)
    except OSError:
        return data_root
    found = [name for name in names if name.replace(".", "", 1).isdecimal() and "." in name.strip(".")]
    return f"{data_root}/{found[0]}" if len(found) == 1 else data_root


def _trusted(config_file: str, exec_root: str) -> tuple[str, ...]:
    """Give the files beside those that the configuration names by which who may write them becomes root."""
    units = ("docker.service", "docker.socket", "containerd.service")
    return (
        config_file.rpartition("/")[0] or "/",
        config_file,
        *("/etc/default/docker", "/etc/sysconfig/docker", "/etc/init.d/docker"),
        *(f"{folder}/{unit}" for folder in ("/etc/systemd/system", "/usr/lib/systemd/system") for unit in units),
        *(
            "/run/containerd/containerd.sock",
            f"{exec_root.replace('/var/run/', '/run/', 1)}/containerd/containerd.sock",
        ),
    )


def _running(host: Host) -> tuple[int, tuple[str, ...]]:
    """Give pid and argv of the dockerd of this host: not of one inside a container."""
    candidates = []
    try:
        own = set(_IN_CONTAINER.findall(host.read("/proc/self/cgroup", 1 << 14)[0]))
    except OSError:
        own = set()
    try:
        named = int(host.read(OPTIONS["pidfile"].default, 32)[0])
    except (OSError, ValueError):
        named = 0
    try:
        pids = [name for name in host.listdir("/proc") if name.isdigit()]
    except OSError:
        pids = []
    if str(named) in pids:
        pids.remove(str(named))
        pids.insert(0, str(named))
    for pid in pids:
        try:
            if host.read(f"/proc/{pid}/comm", 32)[0] != b"dockerd\n":
                continue
            argv = tuple(host.read(f"/proc/{pid}/cmdline", 1 << 16)[0].decode("utf-8", "replace").split("\0")[:-1])
            group = host.read(f"/proc/{pid}/cgroup", 1 << 14)[0]
        except OSError:
            continue
        if _elsewhere(host, pid):
            continue
        if argv and not set(_IN_CONTAINER.findall(group)) - own:
            candidates.append((int(pid), argv))
            if int(pid) == named:
                break
    return candidates[0] if candidates else (0, ())


def _elsewhere(host: Host, pid: str) -> bool:
    """Whether a process lives in another pid namespace than we do: a daemon inside some container or other host."""
    try:
        return host.readlink(f"/proc/{pid}/ns/pid") != host.readlink("/proc/self/ns/pid")
    except OSError:
        return False  # without the right to look, believe


def _settings(host: Host, path: str) -> dict[str, Any]:
    try:
        text = host.read(path, 1 << 18)[0]
        found = json.loads(text.decode("utf-8-sig", "replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _address(hosts: object, docker_host: str, usual: str, *, running: bool) -> str:
    listed = [one for one in hosts if isinstance(one, str)] if isinstance(hosts, list) else []
    for one in listed:
        if one.startswith("unix://"):
            return one
    if listed and not any(one.startswith("fd://") for one in listed):
        return listed[0]
    if docker_host.startswith("unix://") and not running:
        return docker_host
    return usual


def _log(host: Host, pid: int) -> str:
    """Give the file that dockerd writes to, by its standard error, or the newest of the usual ones."""
    if pid:
        try:
            held = host.readlink(f"/proc/{pid}/fd/2")
        except OSError:
            held = ""
        if held.startswith("/") and held.isprintable() and not held.startswith(("/dev/", "/memfd:")):
            return held.removesuffix(" (deleted)")
    there = []
    for path in LOGS:
        try:
            there.append((host.stat(path).st_mtime, path))
        except OSError:
            continue
    return max(there)[1] if there else LOGS[0]


def _exists(host: Host, path: str) -> bool:
    try:
        host.lstat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _in_path(host: Host, program: str) -> str:
    for folder in PROGRAM_FOLDERS:
        if _exists(host, f"{folder}/{program}"):
            return f"{folder}/{program}"
    return ""


def _search_path(host: Host, pid: int) -> str:
    """Read the PATH of a process, and nothing else of its environment."""
    try:
        held = host.read(f"/proc/{pid}/environ", 1 << 17)[0] if pid else b""
    except OSError:
        return ""
    found = next((one for one in held.split(b"\0") if one.startswith(b"PATH=")), b"")
    return found.removeprefix(b"PATH=").decode("utf-8", "replace")


def _program(host: Host, name: str, searched: str) -> str:
    """Find a program that dockerd starts: the first that may be run, else what stands in its place, else where it would be."""
    there = ""
    for folder in dict.fromkeys((*searched.split(":"), *USUAL_FOLDERS)):
        path = f"{folder}/{name}"
        if not folder.startswith("/") or len(path) > MAX_PATH:
            continue
        try:
            about = host.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(about.st_mode) and about.st_mode & 0o111:
            return path
        there = there or path
    return there or f"/usr/bin/{name}"


def _looked(
    host: Host, environ: Mapping[str, str], address: str, data_root: str, binary: str, pid: int
) -> tuple[str, ...]:
    """Say where a daemon was looked for and what was there; `found ` opens what proves one."""
    socket = address.removeprefix("unix://")
    contexts = f"{environ.get('HOME', '/root')}/.docker/contexts/meta"
    return (
        f"found dockerd running, pid {pid}" if pid else "dockerd (running; in PATH; snap; rootless)",
        f"found {binary}" if binary else "",
        f"found {socket}" if _exists(host, socket) else socket,
        f"DOCKER_HOST ({environ.get('DOCKER_HOST') or 'not set'})",
        f"contexts ({'some' if _exists(host, contexts) else 'none'})",
        f"found {data_root}" if _exists(host, f"{data_root}/image") else data_root,
    )


def _iptables(host: Host) -> str:
    """Read what the alternative `iptables` leads to (update-alternatives(1)), else whether there is a program at all."""
    try:
        return host.readlink("/etc/alternatives/iptables").rpartition("/")[2]
    except OSError:
        return "iptables-nft" if _in_path(host, "iptables-nft-save") else ""


def _other(host: Host) -> str:
    for program in ("podman", "containerd", "crio"):
        if _in_path(host, program):
            return program
    return ""
