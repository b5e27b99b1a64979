"""What is read, run and asked: one table of data. `doctor/collect.py` carries it out, in this order within a lane.

A source is one row. Its `name` is the record's name (and its path in a bundle); `{config_file}`, `{data_root}`,
`{exec_root}`, `{pidfile}` and `{log}` in a target are where this host's daemon has them. A `*` in the last part of a
file's path makes one record of each match. `touches` names kernel modules that using the source would load where
they are missing: it is not run unless they are there. Plugins bring rows of their own under the entry point
`doctor.sources`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

SourceKind = Literal["file", "tail", "tree", "list", "command", "api"]


class Source(Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        name: of the record; for a path with `*` the match is appended.
        kind: `file` (one regular file), `tail` (its end), `tree` (small files below a directory, see `members`),
            `list` (the names in a directory), `command` (an argv), `api` (a GET).
        target: path, argv joined by single spaces, or API path.
        members: for a tree, what is read of each directory in it: `name` is read, `name/` and `name?` are only looked
            at, `@` reads the entries themselves, as links or files.
        skip: names of a tree that begin with this are left out (the ports of a bridge route nothing).
        touches: kernel modules it would load.
        limit: bytes kept, at most.
        seconds: the bound on one record.
        scrub: how `doctor.redact` reads the text: `inspect`, `daemon-json`, `docker-config`, `unit`, `text`, ...; `tree`
            for lines of files, `ids` for what holds nothing but ids that the engine made up.
        keep: for a log, the words of which a line must contain one to be kept (lower case); empty keeps all.
        area: who needs it, in the words of a report when it is missing (`firewall`, `store`, `API`, ...).
    """

    name: str
    kind: SourceKind
    target: str
    members: tuple[str, ...] = ()
    skip: str = ""
    touches: tuple[str, ...] = ()
    limit: int = 1 << 20
    seconds: float = 2.0
    scrub: str = "text"
    keep: tuple[str, ...] = ()
    area: str = "files"


def _files(*paths: str, scrub: str = "text", limit: int = 1 << 18, area: str = "files") -> tuple[Source, ...]:
    return tuple(
        Source(name="files" + path, kind="file", target=path, scrub=scrub, limit=limit, area=area) for path in paths
    )


_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_UNITS = ("docker.service", "docker.socket", "containerd.service")

DAEMON: tuple[Source, ...] = (
    Source(
        name="engine/daemon.json",
        kind="file",
        target="{config_file}",
        scrub="daemon-json",
        limit=1 << 18,
        area="daemon.json",
    ),
    *_files("/etc/default/docker", "/etc/sysconfig/docker", "/etc/sysconfig/docker-storage", scrub="unit"),
    *_files("/etc/sysconfig/docker-network", "/etc/conf.d/docker", scrub="unit"),
    *(
        source
        for folder in _UNIT_FOLDERS
        for unit in _UNITS
        for source in _files(f"{folder}/{unit}", f"{folder}/{unit}.d/*.conf", scrub="unit")
    ),
    Source(name="engine/environ", kind="file", target="/proc/{pid}/environ", scrub="environ", limit=1 << 17),
    Source(name="engine/limits", kind="file", target="/proc/{pid}/limits", limit=1 << 14),
    Source(name="engine/mounts", kind="file", target="/proc/{pid}/mountinfo", limit=8 << 20),
    Source(name="host/init", kind="file", target="/proc/1/comm", limit=64),
    Source(name="engine/pidfile", kind="file", target="{pidfile}", limit=64),
    Source(name="engine/init-pid", kind="file", target="/run/docker-ssd.pid", limit=64),
    Source(name="engine/containerd", kind="list", target="/run/containerd", scrub="tree"),
    Source(name="engine/containerd-own", kind="list", target="{exec_root}/containerd", scrub="tree"),
    Source(name="engine/init-script", kind="file", target="/etc/init.d/docker", limit=1 << 16),
    Source(name="engine/log", kind="tail", target="{log}", limit=1 << 19, scrub="text", area="the log of dockerd"),
)

HOST: tuple[Source, ...] = (
    *_files("/etc/sysctl.conf", "/etc/sysctl.d/*.conf", "/run/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf"),
    *_files("/usr/local/lib/sysctl.d/*.conf", "/etc/ufw/sysctl.conf"),
    *_files("/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/iptables/rules.v4", "/etc/iptables/rules.v6"),
    *_files("/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables", "/etc/ufw/ufw.conf", "/etc/default/ufw"),
    *_files("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/etc/os-release", "/etc/hosts"),
    *_files("/etc/subuid", "/etc/subgid"),
    Source(name="host/groups", kind="file", target="/etc/group", keep=("docker:",), limit=1 << 18),
    *_files("/proc/version", "/proc/uptime", "/proc/meminfo", "/proc/filesystems", "/proc/cgroups"),
    *_files("/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/sys/kernel/pid_max"),
    *_files("/proc/sys/user/max_net_namespaces", "/proc/sys/user/max_user_namespaces"),
    Source(name="host/boot", kind="file", target="/proc/stat", keep=("btime ",), limit=1 << 20),
    Source(name="host/mounts", kind="file", target="/proc/self/mountinfo", limit=8 << 20),
    Source(name="host/binfmt", kind="list", target="/proc/sys/fs/binfmt_misc", scrub="tree"),
    Source(
        name="net/sysctl/ipv4",
        kind="tree",
        target="/proc/sys/net/ipv4/conf",
        members=("forwarding", "rp_filter", "route_localnet", "accept_local", "arp_ignore"),
        skip="veth",
        scrub="tree",
        area="sysctls",
    ),
    Source(
        name="net/sysctl/ipv6",
        kind="tree",
        target="/proc/sys/net/ipv6/conf",
        members=("forwarding", "disable_ipv6", "accept_ra"),
        skip="veth",
        scrub="tree",
        area="sysctls",
    ),
    *_files("/proc/sys/net/ipv4/ip_nonlocal_bind", "/proc/sys/net/ipv6/ip_nonlocal_bind", area="sysctls"),
    *_files("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_local_port_range", area="sysctls"),
    *_files("/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max", area="sysctls"),
    *_files("/proc/net/stat/nf_conntrack", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names", area="firewall"),
    Source(
        name="net/sysctl/bridge",
        kind="tree",
        target="/proc/sys/net/bridge",
        members=("@",),
        scrub="tree",
        area="sysctls",
    ),
    Source(
        name="host/packages",
        kind="tail",
        target="/var/log/dpkg.log",
        keep=("docker", "containerd", "runc", "iptables", "nftables", "linux-image", "firewalld", "ufw"),
        limit=1 << 19,
    ),
    Source(
        name="host/packages-rpm",
        kind="tail",
        target="/var/log/dnf.rpm.log",
        keep=("docker", "containerd", "runc", "iptables", "nftables", "kernel", "firewalld"),
        limit=1 << 19,
    ),
)

STORE_LAST = Source(
    name="store/overlay2-last", kind="list", target="{data_root}/overlay2", limit=8 << 20, scrub="ids", area="store"
)
"""Last of the store: a layer that is gone by now was being removed while its links were read."""

STORE: tuple[Source, ...] = (
    Source(name="store/root", kind="list", target="{data_root}", scrub="tree", area="store"),
    Source(
        name="store/overlay2",
        kind="tree",
        target="{data_root}/overlay2",
        members=("link", "lower", "diff/", "work/"),
        limit=16 << 20,
        scrub="ids",
        area="store",
    ),
    Source(
        name="store/overlay2-l",
        kind="tree",
        target="{data_root}/overlay2/l",
        members=("@",),
        limit=8 << 20,
        scrub="ids",
        area="store",
    ),
    Source(
        name="store/layerdb",
        kind="tree",
        target="{data_root}/image/overlay2/layerdb/sha256",
        members=("cache-id", "diff", "parent", "size", "tar-split.json.gz?"),
        limit=16 << 20,
        scrub="ids",
        area="store",
    ),
    Source(
        name="store/layerdb-mounts",
        kind="tree",
        target="{data_root}/image/overlay2/layerdb/mounts",
        members=("mount-id", "init-id", "parent"),
        limit=8 << 20,
        scrub="ids",
        area="store",
    ),
    Source(
        name="store/layerdb-tmp",
        kind="list",
        target="{data_root}/image/overlay2/layerdb/tmp",
        scrub="tree",
        area="store",
    ),
    # After the layers, and before their directories are listed again: an image that is gone by then was being removed.
    Source(
        name="store/images-last",
        kind="tree",
        target="{data_root}/image/overlay2/imagedb/content/sha256",
        members=("@?",),
        limit=8 << 20,
        scrub="ids",
        area="store",
    ),
    # Before the names: one that leads to an image which is neither here nor there afterwards leads nowhere.
    Source(
        name="store/images-first",
        kind="list",
        target="{data_root}/image/overlay2/imagedb/content/sha256",
        scrub="ids",
        area="store",
    ),
    Source(
        name="store/repositories.json",
        kind="file",
        target="{data_root}/image/overlay2/repositories.json",
        limit=8 << 20,
        area="store",
    ),
    Source(
        name="store/images/",
        kind="file",
        target="{data_root}/image/overlay2/imagedb/content/sha256/*",
        scrub="inspect",
        area="store",
    ),
    STORE_LAST,
    *(
        Source(name=f"store/driver-{name}", kind="list", target=f"{{data_root}}/{name}", scrub="tree", area="store")
        for name in ("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "zfs")
    ),
    Source(
        name="store/volumes-data",
        kind="tree",
        target="{data_root}/volumes",
        members=("_data/",),
        limit=4 << 20,
        scrub="tree",
        area="store",
    ),
    Source(name="store/volumes", kind="list", target="{data_root}/volumes", scrub="tree", area="store"),
    Source(
        name="store/network-db",
        kind="tree",
        target="{data_root}/network/files",
        members=("@?",),
        scrub="tree",
        area="store",
    ),
    Source(name="store/swarm", kind="tree", target="{data_root}/swarm", members=("@?",), scrub="tree", area="store"),
)

KERNEL_LOG = Source(
    name="host/kernel-log",
    kind="file",
    target="the kernel's log (syslog(2))",
    limit=1 << 16,
    keep=(
        "docker",
        "veth",
        "br-",
        "overlay",
        "unregister_netdevice",
        "nf_conntrack",
        "out of memory",
        "oom",
        "hung_task",
        "blocked for more than",
        "i/o error",
        "ext4-fs",
        "xfs",
        "btrfs",
        "bug: ",
        "oops: ",
        "kernel bug at",
        "general protection fault",
        "unable to handle kernel",
        "segfault",
        "neighbour",
    ),
)
"""Read by a system call: it is no file. Lines that concern containers, for dates and for what the disk said."""

CONTAINER_FILES = (("resolv.conf", "text"), ("hosts", "text"), ("hostname", "text"))
"""Read of each directory in `{data_root}/containers`: file and how it is scrubbed."""

CONTAINER_STATE = (("config.v2.json", "inspect"), ("hostconfig.json", "inspect"))
"""Read of those that the daemon does not tell of: the same again would be read, scrubbed and kept twice."""

_SAVE = 8 << 20

COMMANDS: tuple[Source, ...] = (
    Source(
        name="net/iptables-nft",
        kind="command",
        target="iptables-nft-save -c",
        touches=("nf_tables",),
        limit=_SAVE,
        area="firewall",
    ),
    Source(
        name="net/ip6tables-nft",
        kind="command",
        target="ip6tables-nft-save -c",
        touches=("nf_tables",),
        limit=_SAVE,
        area="firewall",
    ),
    Source(
        name="net/iptables-legacy",
        kind="command",
        target="iptables-legacy-save -c",
        touches=("ip_tables",),
        limit=_SAVE,
        area="firewall",
    ),
    Source(
        name="net/ip6tables-legacy",
        kind="command",
        target="ip6tables-legacy-save -c",
        touches=("ip6_tables",),
        limit=_SAVE,
        area="firewall",
    ),
    # Terse: a set of 100,000 elements would cost 66 MB and a third of a second (measured).
    Source(
        name="net/nft",
        kind="command",
        target="nft -j -t list ruleset",
        touches=("nf_tables",),
        limit=_SAVE,
        area="firewall",
    ),
    Source(
        name="engine/journal",
        kind="command",
        target="journalctl -u docker.service -n 2000 --no-pager --utc -o short-iso",
        seconds=1.5,
        limit=1 << 20,
        area="the log of dockerd",
    ),
)

LIST = "/containers/json?all=1"
"""Asked first and once more at the end: what differs between the two is unsettled."""

VERSION = Source(name="engine/version", kind="command", target="dockerd --version", area="daemon")
"""Run only where the API does not tell the version: it costs a tenth of a second."""

API: tuple[Source, ...] = (
    Source(name="api/version", kind="api", target="/version", area="API"),
    Source(name="api/networks", kind="api", target="/networks", scrub="inspect", area="API"),
    Source(name="api/info", kind="api", target="/info", scrub="inspect", area="API"),
)

API_LATE: tuple[Source, ...] = (
    Source(name="api/images", kind="api", target="/images/json", scrub="inspect", limit=32 << 20, area="API"),
    Source(name="api/volumes", kind="api", target="/volumes", scrub="inspect", area="API"),
)
"""Asked after the containers have been inspected: what the rest can do without."""

SOURCES: tuple[Source, ...] = (*DAEMON, *HOST, *STORE, *COMMANDS, *API, *API_LATE)
