"""The configuration of a container as an OCI runtime takes it: config.json of a bundle (runtime-spec 1.0 to 1.2).

Fields have the words of the specification; those that this runtime does not know are passed over (seccomp, AppArmor,
hooks). `DOCKER` and what is beside it are the defaults that the engine writes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field

NamespaceType = Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


class User(Struct, frozen=True, rename="camel"):
    """Who a process is."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int | None = None


class Capabilities(Struct, frozen=True):
    """The five sets, by name (capabilities(7))."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Struct, frozen=True):
    """A limit of setrlimit(2): `type` is `RLIMIT_NOFILE` and its like; 2**64-1 is none."""

    type: str
    soft: int
    hard: int


class ConsoleSize(Struct, frozen=True):
    """The size of a terminal."""

    height: int = 0
    width: int = 0


class Process(Struct, frozen=True, rename="camel"):
    """A process of a container: the first, or one that joins it."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False
    console_size: ConsoleSize = ConsoleSize()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


class Root(Struct, frozen=True):
    """The root file system: `path` is relative to the bundle."""

    path: str
    readonly: bool = False


class Mount(Struct, frozen=True):
    """One mount: `options` are those of mount(8), a `type` of `bind` or an option `bind` or `rbind` makes it a bind mount."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


class Namespace(Struct, frozen=True):
    """A namespace: new, or the one at `path`. Kinds that are not listed are those of who makes the container."""

    type: NamespaceType
    path: str = ""


class Linux(Struct, frozen=True, rename="camel"):
    """What is Linux's own."""

    namespaces: tuple[Namespace, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: dict[str, str] = {}
    cgroups_path: str = ""
    resources: dict[str, Any] = {}
    rootfs_propagation: str = ""


class Config(Struct, frozen=True, rename="camel"):
    """A container."""

    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: dict[str, str] = {}
    oci_version: str = field(default="1.0.2", name="ociVersion")


def decode(text: bytes | str) -> Config:
    """Read a config.json. Raises ValueError with the path of what is wrong in it."""
    try:
        return msgspec.json.decode(text, type=Config)
    except msgspec.DecodeError as error:
        raise ValueError(f"config.json: {error}") from None


def encode(config: Config) -> bytes:
    """Write a config.json."""
    return msgspec.json.encode(config)


ALL_NAMESPACES: tuple[NamespaceType, ...] = ("mount", "network", "uts", "pid", "ipc", "cgroup")

DOCKER_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""moby oci/caps/defaults.go."""

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DOCKER_MOUNTS = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=67108864")),  # noqa: S108 - a mount
)
"""moby oci/defaults.go; /dev/shm is a mount of the engine's own there."""


def capabilities(names: tuple[str, ...]) -> Capabilities:
    """Give a process of root these capabilities: none inheritable, none ambient, as the engine since 20.10.14."""
    return Capabilities(names, names, names)


def default(args: tuple[str, ...], *, rootfs: str = "rootfs", hostname: str = "") -> Config:
    """Give the configuration that `docker run` writes without options."""
    return Config(
        Process(
            args,
            env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",),
            capabilities=capabilities(DOCKER_CAPABILITIES),
        ),
        Root(rootfs),
        hostname=hostname,
        mounts=DOCKER_MOUNTS,
        linux=Linux(
            tuple(Namespace(kind) for kind in ALL_NAMESPACES), masked_paths=MASKED_PATHS, readonly_paths=READONLY_PATHS
        ),
    )
