"""What the daemon says of itself and of its host: `/version` and `/info`.

Read from the host that it runs in, as far as a reader looks at it; figures of Go (goroutines, file descriptors) are ours.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.log import stamp

if TYPE_CHECKING:
    from doctor.runtime.daemon.generation import Generation
    from doctor.runtime.model import World

_LIMITS = ("MemoryLimit", "SwapLimit")
_MORE_LIMITS = ("CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit")


def architecture() -> str:
    """Name this machine as Go does."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def version(generation: Generation) -> dict[str, Any]:
    """Answer /version."""
    kernel = os.uname().release
    details = {
        "ApiVersion": generation.api,
        "Arch": architecture(),
        "BuildTime": generation.built,
        "Experimental": "false",
        "GitCommit": generation.commit,
        "GoVersion": generation.go,
        "KernelVersion": kernel,
        "MinAPIVersion": generation.least,
        "Os": "linux",
    }
    parts = (
        ("containerd", generation.containerd, generation.containerd_commit),
        ("runc", generation.runc, generation.runc_commit),
        ("docker-init", generation.init, ""),
    )
    return {
        "Platform": {"Name": ""},
        "Components": [
            {"Name": "Engine", "Version": generation.version, "Details": details},
            *({"Name": name, "Version": text, "Details": {"GitCommit": commit}} for name, text, commit in parts),
        ],
        "Version": generation.version,
        "ApiVersion": generation.api,
        "MinAPIVersion": generation.least,
        "GitCommit": generation.commit,
        "GoVersion": generation.go,
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel,
        "BuildTime": generation.built,
    }


def info(world: World, generation: Generation, identity: str, listeners: int) -> dict[str, Any]:
    """Answer /info. `identity` is the daemon's ID, `listeners` how many read its events."""
    release = generation.release
    values = world.settings.values
    states = [one.state for one in world.containers.values()]
    running, paused = sum(one == "running" for one in states), states.count("paused")
    found: dict[str, Any] = {
        "ID": identity,
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(world.images),
        "Driver": "overlay2",
        "DriverStatus": _driver_status(values["data-root"], old=release < (23, 0)),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"],
            "Authorization": None,
            "Log": _log_drivers(release),
        },
    }
    found |= dict.fromkeys(_LIMITS, True)
    if release < (23, 0):
        found["KernelMemory"] = True
    found |= {"KernelMemoryTCP": True, **dict.fromkeys(_MORE_LIMITS, True), "IPv4Forwarding": _forwards()}
    if release < (28, 0):
        found |= {"BridgeNfIptables": _bridge("iptables"), "BridgeNfIp6tables": _bridge("ip6tables")}
    return found | {
        "Debug": values["debug"],
        "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a count
        "OomKillDisable": True,
        "NGoroutines": 1,
        "SystemTime": stamp(),
        "LoggingDriver": values["log-driver"],
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1",
        "NEventsListener": listeners,
        "KernelVersion": os.uname().release,
        **_system(),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(values, release),
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "GenericResources": None,
        "DockerRootDir": values["data-root"],
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": os.uname().nodename,
        "Labels": values["labels"],
        "ExperimentalBuild": values["experimental"],
        "ServerVersion": generation.version,
        "Runtimes": _runtimes(values["runtimes"], release),
        "DefaultRuntime": values["default-runtime"],
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": values["live-restore"],
        "Isolation": "",
        "InitBinary": "docker-init",
        **_commits(generation),
        "SecurityOptions": [f"name=seccomp,profile={'default' if release < (23, 0) else 'builtin'}"],
        **_newer(world.settings.dialect, values, release),
        "Warnings": None,
    }


def _driver_status(data_root: str, *, old: bool) -> list[list[str]]:
    rows = [["Backing Filesystem", _backing(data_root)], ["Supports d_type", "true"]]
    rows += [] if old else [["Using metacopy", "false"]]
    rows.append(["Native Overlay Diff", "true"])
    inside = Path("/proc/self/uid_map").read_text(encoding="ascii").split()[1:2] != ["0"]
    return [*rows, ["userxattr", "true" if inside else "false"]]


def _backing(data_root: str) -> str:
    """Name the file system below the data root, as the engine does."""
    found = ("", "tmpfs")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > 4 and (data_root + "/").startswith(fields[4].rstrip("/") + "/"):  # noqa: PLR2004 - mount point
            found = max(found, (fields[4], right.split(" ")[0]), key=lambda one: len(one[0]))
    return {"ext4": "extfs", "ext3": "extfs", "overlay": "overlayfs"}.get(found[1], found[1])


def _log_drivers(release: tuple[int, int]) -> list[str]:
    drivers = [
        "awslogs",
        "fluentd",
        "gcplogs",
        "gelf",
        "journald",
        "json-file",
        "local",
        "logentries",
        "splunk",
        "syslog",
    ]
    gone = {"logentries"} if release >= (23, 0) else set()
    return [one for one in drivers if one not in gone | ({"gcplogs"} if release >= (28, 0) else set())]


def _forwards() -> bool:
    try:
        return Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def _bridge(family: str) -> bool:
    try:
        return Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def _system() -> dict[str, str]:
    """Name the distribution by os-release(5)."""
    held: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            continue
        held = {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines) if value}
        break
    return {"OperatingSystem": held.get("PRETTY_NAME", "Linux"), "OSVersion": held.get("VERSION_ID", "")}


def _registries(values: dict[str, Any], release: tuple[int, int]) -> dict[str, Any]:
    nothing: list[str] | None = [] if release < (23, 0) else None
    insecure = [one for one in values["insecure-registries"] if "/" in one]
    found: dict[str, Any] = {}
    if release < (28, 0):
        found = {f"AllowNondistributableArtifacts{kind}": nothing for kind in ("CIDRs", "Hostnames")}
    mirrors = list(values["registry-mirrors"])
    hosts = {
        one: {"Mirrors": [], "Name": one, "Official": False, "Secure": False}
        for one in values["insecure-registries"]
        if "/" not in one
    }
    official = {"Mirrors": mirrors, "Name": "docker.io", "Official": True, "Secure": True}
    return found | {
        "IndexConfigs": {"docker.io": official, **hosts},
        "InsecureRegistryCIDRs": [*(["::1/128"] if release >= (28, 0) else []), "127.0.0.0/8", *insecure],
        "Mirrors": mirrors or nothing,
    }


def _runtimes(added: dict[str, Any], release: tuple[int, int]) -> dict[str, Any]:
    names = ["io.containerd.runc.v2", *(["io.containerd.runtime.v1.linux"] if release < (23, 0) else []), "runc"]
    found: dict[str, Any] = {name: {"path": "runc"} for name in names}
    return found | {name: {"path": one.get("path", "")} for name, one in added.items() if isinstance(one, dict)}


def _commits(generation: Generation) -> dict[str, Any]:
    held = (
        ("Containerd", generation.containerd_commit),
        ("Runc", generation.runc_commit),
        ("Init", ""),
    )
    if generation.release >= (28, 0):
        return {f"{name}Commit": {"ID": commit} for name, commit in held}
    return {f"{name}Commit": {"ID": commit, "Expected": commit} for name, commit in held}


def _newer(dialect: str, values: dict[str, Any], release: tuple[int, int]) -> dict[str, Any]:
    """Give what newer releases say beside."""
    if release < (25, 0):
        return {}
    folders = values.get("cdi-spec-dirs") or (["/etc/cdi", "/var/run/cdi"] if release >= (28, 0) else [])
    if release < (28, 0):
        return {"CDISpecDirs": folders}
    exec_root = values["exec-root"]
    return {
        "FirewallBackend": {"Driver": "nftables" if dialect.endswith("nftables") else "iptables"},
        "CDISpecDirs": folders,
        "Containerd": {
            "Address": f"{exec_root}/containerd/containerd.sock",
            "Namespaces": {"Containers": "moby", "Plugins": "plugins.moby"},
        },
    }
