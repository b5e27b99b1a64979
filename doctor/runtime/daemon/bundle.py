"""What the runtime is told to make of a container: its OCI configuration as the engine writes it (moby daemon/oci_linux.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.linux.privileges import NAMES
from doctor.runtime import oci
from doctor.runtime.daemon import limits
from doctor.runtime.daemon import spec as spelling
from doctor.runtime.process import small

if TYPE_CHECKING:
    from doctor.runtime.model import Bind, Container, ContainerSpec

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LARGEST = (1 << 64) - 1


class Shared:
    """Namespaces that a container has with others: paths, `host` for those of the daemon, empty for its own."""

    def __init__(self, network: str = "", pid: str = "", ipc: str = "") -> None:
        """Keep the three."""
        self.network = network
        self.pid = pid
        self.ipc = ipc


def config(
    one: Container, root: str, folder: str, volumes: str, shared: Shared, controllers: frozenset[str] = frozenset()
) -> oci.Config:
    """Make the configuration. `root` is where its layers are mounted, `folder` its own in the data root.

    `controllers` are those of control groups that it can be limited by; none: it is in no group of its own.
    Raises ValueError for a user that its image does not know.
    """
    spec = one.spec
    first = process(spec, spelling.argv(spec), root, one.id)
    namespaces: list[oci.Namespace] = [oci.Namespace("mount"), oci.Namespace("uts")]
    kinds: tuple[tuple[oci.NamespaceType, str], ...] = (
        ("network", shared.network),
        ("pid", shared.pid),
        ("ipc", shared.ipc),
    )
    namespaces += [oci.Namespace(kind, path) for kind, path in kinds if path != "host"]
    linux = oci.Linux(
        tuple(namespaces),
        masked_paths=() if spec.privileged else oci.MASKED_PATHS,
        readonly_paths=() if spec.privileged else oci.READONLY_PATHS,
        sysctl=spec.sysctls,
        cgroups_path=limits.group(one.id, controllers),
        resources=limits.resources(spec.limits),
    )
    return oci.Config(
        first,
        oci.Root(root, spec.readonly),
        hostname=spec.hostname or one.id[:12],
        domainname=spec.domainname,
        mounts=_mounts(spec, folder, volumes),
        linux=linux,
    )


def process(
    spec: ContainerSpec,
    argv: tuple[str, ...],
    root: str,
    identity: str,
    *,
    tty: bool | None = None,
    user: str | None = None,
) -> oci.Process:
    """Make a process of a container: its first, or one that joins it. Raises ValueError for an unknown user."""
    terminal = spec.tty if tty is None else tty
    who, home = _user(spec.user if user is None else user, root)
    names = {one.partition("=")[0] for one in spec.env}
    usual = [PATH, f"HOSTNAME={spec.hostname or identity[:12]}", *(["TERM=xterm"] if terminal else [])]
    env = [one for one in usual if one.partition("=")[0] not in names]
    env += [one for one in spec.env if "=" in one]
    if "HOME" not in names:
        env.append(f"HOME={home}")
    rlimits = tuple(oci.Rlimit(f"RLIMIT_{name.upper()}", *_limits(pair)) for name, pair in spec.ulimits.items())
    return oci.Process(
        argv,
        cwd=spec.workdir or "/",
        env=tuple(env),
        user=who,
        terminal=terminal,
        capabilities=oci.capabilities(_capabilities(spec)),
        rlimits=rlimits,
        no_new_privileges=spec.no_new_privileges,
    )


def _limits(pair: tuple[int, int]) -> tuple[int, int]:
    soft, hard = (_LARGEST if one < 0 else one for one in pair)
    return soft, hard


def _capabilities(spec: ContainerSpec) -> tuple[str, ...]:
    every = NAMES
    if spec.privileged:
        return every
    added = {_capability(one) for one in spec.cap_add}
    dropped = {_capability(one) for one in spec.cap_drop}
    start: tuple[str, ...] = () if "CAP_ALL" in dropped else oci.DOCKER_CAPABILITIES
    if "CAP_ALL" in added:
        start = every
    return tuple(one for one in every if (one in start or one in added) and (one not in dropped or one in added))


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _user(text: str, root: str) -> tuple[oci.User, str]:
    """Read NAME, UID, or either with a group, by the image's own passwd(5) and group(5); give the home as well."""
    name, _, group = text.partition(":")
    uid, gid, home = (int(name), 0, "/") if name.isdecimal() else (0, 0, "/root")
    known = not name or name.isdecimal()
    for fields in _table(root, "passwd", 7):
        if fields[0] == name or (not name and fields[0] == "root") or fields[2] == name:
            uid, gid, home, known = int(fields[2]), int(fields[3]), fields[5] or "/", True
            break
    if not known:
        raise ValueError(f"unable to find user {name}: no matching entries in passwd file")
    if group:
        found = [int(fields[2]) for fields in _table(root, "group", 4) if group in {fields[0], fields[2]}]
        if not found and not group.isdecimal():
            raise ValueError(f"unable to find group {group}: no matching entries in group file")
        gid = found[0] if found else int(group)
    return oci.User(uid, gid), home


def _table(root: str, name: str, width: int) -> list[list[str]]:
    try:
        text = small(f"{root}/etc/{name}")
    except OSError:
        return []
    rows = [line.split(":") for line in text.split("\n")]
    return [row for row in rows if len(row) >= width and row[2].isdecimal()]


def _mounts(spec: ContainerSpec, folder: str, volumes: str) -> tuple[oci.Mount, ...]:
    usual = []
    own = {one.target for one in spec.mounts}
    for mount in oci.DOCKER_MOUNTS:
        if mount.destination in own:
            continue
        options = mount.options
        if spec.privileged:
            options = tuple("rw" if option == "ro" else option for option in options)
        if mount.destination == "/dev/shm":  # noqa: S108 - in the container
            options = tuple(f"size={spec.shm_size}" if option.startswith("size=") else option for option in options)
        usual.append(oci.Mount(mount.destination, mount.type, mount.source, options))
    files = [
        oci.Mount(f"/etc/{name}", "bind", f"{folder}/{name}", ("rbind", "rprivate"))
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in own
    ]
    asked = [_mount(one, volumes) for one in sorted(spec.mounts, key=lambda one: one.target.count("/"))]
    return (*usual, *files, *asked)


def _mount(one: Bind, volumes: str) -> oci.Mount:
    if one.kind == "tmpfs":
        options = (
            ("nosuid", "nodev", "noexec", *one.options.split(",")) if one.options else ("nosuid", "nodev", "noexec")
        )
        return oci.Mount(one.target, "tmpfs", "tmpfs", options)
    source = one.source if one.kind == "bind" else f"{volumes}/{one.source}/_data"
    return oci.Mount(one.target, "bind", source, ("rbind", "rprivate", *(("ro",) if one.readonly else ())))
