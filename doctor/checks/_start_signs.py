"""The words of a dockerd that does not start, and what they mean: for reasons that have no code of their own."""

from __future__ import annotations

from msgspec import Struct


class Sign(Struct, frozen=True):
    """Words of a start that failed, what they mean, and the option or the advice that cures it.

    `{}` in what they mean is the last word of the log's line: which flag, which address.
    """

    words: tuple[str, ...]
    means: str
    key: str = ""
    advice: str = ""
    others: tuple[str, ...] = ()
    """Options of which the same is said: that one is meant whose value is quoted."""


SIGNS = (
    Sign(("failed to load listeners: group",), "the group that the socket should have does not exist", "group"),
    Sign(("address already in use", "cannot assign requested address"), "an address of hosts is not free", "hosts"),
    Sign(("Invalid bind address", "invalid bind address"), "an address of hosts is none", "hosts"),
    Sign(("invalid MTU number", "invalid default MTU"), "mtu is no MTU", "mtu"),
    Sign(
        ("is not an ip address", "invalid IP address"),
        "what should be an address is none",
        "dns",
        others=("ip", "host-gateway-ip", "default-gateway"),
    ),
    Sign(
        ("than the target size of that pool", "invalid pools size", "invalid base pool"),
        "a pool cannot be cut into networks of that size",
        "default-address-pools",
    ),
    Sign(("opening seccomp profile",), "the file of the seccomp profile cannot be read", "seccomp-profile"),
    Sign(("cgroup-parent for systemd",), "cgroup-parent is no slice of systemd", "cgroup-parent"),
    Sign(("insecure registry",), "an insecure registry is no HOST:PORT", "insecure-registries"),
    Sign(("parse GenericResource",), "a generic resource is no KIND=VALUE", "node-generic-resources"),
    Sign(
        ("storage-driver has been deprecated and removed",),
        "this release no longer has the storage driver: {}",
        "storage-driver",
        "its images and containers stay where they are, below the data root; only an older Docker reads them",
    ),
    Sign(
        ("Status: unknown flag", "Status: unknown shorthand flag"),
        "it is given a flag that it does not know: {}",
        advice="correct it where dockerd is started from:"
        " grep -rs -e {} /etc/default/docker /etc/sysconfig/docker /etc/systemd/system",
    ),
    Sign(
        ("Status: invalid argument",),
        "a flag is given a value that it does not take",
        advice="correct it where dockerd is started from: /etc/default/docker, /etc/sysconfig/docker, systemctl cat docker",
    ),
    Sign(("bad attribute format",), "a label has no value: it is KEY=VALUE", "labels"),
    Sign(("invalid mirror",), "a registry mirror is no URL that Docker takes", "registry-mirrors"),
    Sign(("default IPC mode",), "default-ipc-mode is neither private nor shareable", "default-ipc-mode"),
    Sign(("default cgroup namespace",), "default-cgroupns-mode is neither private nor host", "default-cgroupns-mode"),
    Sign(("invalid max concurrent downloads",), "it is less than 0", "max-concurrent-downloads"),
    Sign(("invalid max concurrent uploads",), "it is less than 0", "max-concurrent-uploads"),
    Sign(("invalid exec-opt",), "exec-opts has an option that is none", "exec-opts"),
    Sign(("lookup for", "Error during uid lookup"), "the user of userns-remap does not exist", "userns-remap"),
    Sign(
        (
            *("driver not supported", "no supported storage driver found", "prior storage driver"),
            "prerequisites for driver not satisfied",
        ),
        "the storage driver cannot be used here",
        "storage-driver",
        "look whether the driver's module and file system are there: grep overlay /proc/filesystems",
    ),
    Sign(
        ("contains several valid graphdrivers",),
        "several storage drivers have left data, and none is chosen",
        advice="name the one with the data as storage-driver in daemon.json",
    ),
    Sign(
        ("live-restore daemon configuration is incompatible with swarm mode",),
        "live-restore cannot be on where this host is in a swarm",
        "live-restore",
    ),
    Sign(
        ("incompatible with swarm mode",),
        "an option cannot be used in a swarm",
        advice="take it out, or leave the swarm",
    ),
    Sign(("native.cgroupdriver option",), "native.cgroupdriver is neither cgroupfs nor systemd", "exec-opts"),
    Sign(
        ("initializing graphdriver: overlay2: unknown option", "overlay2: Unknown option"),
        "storage-opts has an option that this release does not know",
        "storage-opts",
    ),
    Sign(
        ("user creation: ",),
        "it cannot make the user dockremap that userns-remap default asks for",
        advice="make it first: groupadd -r dockremap; useradd -r -g dockremap dockremap (and, where they are missing, its"
        " ranges: echo dockremap:165536:65536 >>/etc/subuid; echo dockremap:165536:65536 >>/etc/subgid)",
    ),
    Sign(
        ("No subuid ranges found", "No subgid ranges found"),
        "the user of userns-remap has no range of ids",
        advice="give it one: echo dockremap:165536:65536 >>/etc/subuid; echo dockremap:165536:65536 >>/etc/subgid",
    ),
    Sign(
        ("iptables not found", "Iptables not found", "iptables: executable file not found"),
        "it finds no iptables that it may run",
        advice="install it: apt-get install iptables, dnf install iptables-nft, apk add iptables; where it is there:"
        " chmod 0755 /usr/sbin/iptables",
    ),
    Sign(
        ("could not find an available, non-overlapping IPv4 address pool", "no available network"),
        "no pool of default-address-pools is free for docker0",
        advice="give docker0 a subnet that no route of this host has (bip in daemon.json), or another default-address-pools;"
        " ip route says what is taken",
    ),
    Sign(
        (
            "IPv6 is enabled for the default bridge, but no subnet is configured",
            "could not find an available, non-overlapping IPv6 address pool",
        ),
        "IPv6 is on, and docker0 has no subnet of it",
        advice='give it one: "fixed-cidr-v6": "fd00:1::/64" in daemon.json',
    ),
    Sign(
        ("timeout waiting for containerd", "failed to dial", "failed to start containerd"),
        "containerd does not answer",
        advice="cure containerd first: its log says why",
    ),
    Sign(
        ("no space left on device",),
        "the disk is full",
        advice="make room below the data root first: df -h /var/lib/docker",
    ),
    Sign(
        ("metadata database: timeout", "database is locked"),
        "another process holds Docker's databases open",
        advice="a second dockerd? fuser -v /var/lib/docker/volumes/metadata.db",
    ),
    Sign(
        ("layer does not exist",),
        "a layer that is referred to is not there",
        advice="the store is damaged: keep a copy first",
    ),
    Sign(
        ("RULE_APPEND failed", "Could not fetch rule set", "No chain/target/match", "iptables failed"),
        "its firewall rules cannot be written",
        advice="after a kernel update, boot the kernel whose modules are installed: uname -r; ls /lib/modules",
    ),
    Sign(
        ("ZONE_CONFLICT",), "firewalld has the bridge in another zone", advice="take docker0 out of that zone for good"
    ),
    Sign(
        ("cgroup mountpoint does not exist", "Devices cgroup isn't mounted"),
        "the cgroups are not mounted as it needs them",
        advice="mount them: ls /sys/fs/cgroup",
    ),
    Sign(
        ("X509", "CA certificate", "tls:"),
        "its certificates cannot be used",
        advice="look at tlscacert, tlscert and tlskey",
    ),
    Sign(("panic: ", "fatal error: "), "it crashed", advice="keep its log for whoever must explain the crash"),
)
