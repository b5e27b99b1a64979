"""The options of dockerd: each key of daemon.json with its flag, its type and its default.

Source: dockerd(8), moby `cmd/dockerd/config.go` and `daemon/config/config.go`, 20.10 to 28. A list flag has a singular
name and a plural key (`--host`, `hosts`); dockerd refuses to start when a key stands both in the file and on its
command line, whatever the values (`findConfigurationConflicts`), except for `runtimes`, which it merges.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Type = Literal["bool", "string", "number", "list", "map"]


class Option(Struct, frozen=True):
    """One option: its key in daemon.json, its long flag without dashes, its type, its default as text."""

    key: str
    flag: str
    type: Type
    default: str = ""


def _table(kind: Type, *rows: str) -> tuple[Option, ...]:
    """Read rows of `key`, `key=default` or `key flag`."""
    options = []
    for row in rows:
        names, _, default = row.partition("=")
        key, _, flag = names.partition(" ")
        options.append(Option(key, flag or key, kind, default))
    return tuple(options)


OPTIONS: dict[str, Option] = {
    option.key: option
    for option in (
        *_table(
            "bool",
            "debug=false",
            "experimental=false",
            "icc=true",
            "init=false",
            "ip-forward=true",
            "ip-forward-no-drop=false",
            "ip-masq=true",
            "ip6tables=true",
            "iptables=true",
            "ipv6=false",
            "live-restore=false",
            "no-new-privileges=false",
            "raw-logs=false",
            "selinux-enabled=false",
            "tls=false",
            "tlsverify=false",
            "userland-proxy=true",
            "validate=false",
            "bridge-accept-fwmark=false",
            "allow-direct-routing=false",
            "rootless=false",
            "cri-containerd=false",
            "help=false",
            "version=false",
        ),
        *_table(
            "string",
            "api-cors-header",
            "bip",
            "bip6",
            "bridge",
            "cgroup-parent",
            "config-file=/etc/docker/daemon.json",
            "containerd",
            "containerd-namespace=moby",
            "containerd-plugins-namespace=plugins.moby",
            "data-root=/var/lib/docker",
            "default-cgroupns-mode",
            "default-gateway",
            "default-gateway-v6",
            "default-ipc-mode=private",
            "default-runtime=runc",
            "exec-root=/var/run/docker",
            "firewall-backend",
            "fixed-cidr",
            "fixed-cidr-v6",
            "graph",
            "group=docker",
            "host-gateway-ip",
            "http-proxy",
            "https-proxy",
            "init-path",
            "ip=0.0.0.0",
            "log-driver=json-file",
            "log-format=text",
            "log-level=info",
            "metrics-addr",
            "min-api-version",
            "no-proxy",
            "pidfile=/var/run/docker.pid",
            "seccomp-profile",
            "storage-driver",
            "swarm-default-advertise-addr",
            "tlscacert",
            "tlscert",
            "tlskey",
            "userland-proxy-path",
            "userns-remap",
        ),
        *_table(
            "number",
            "cpu-rt-period",
            "cpu-rt-runtime",
            "default-shm-size=64M",
            "max-concurrent-downloads=3",
            "max-concurrent-uploads=5",
            "max-download-attempts=5",
            "mtu=1500",
            "network-control-plane-mtu=1500",
            "network-diagnostic-port",
            "oom-score-adjust=-500",
            "shutdown-timeout=15",
        ),
        *_table(
            "list",
            "allow-nondistributable-artifacts",
            "authorization-plugins authorization-plugin",
            "cdi-spec-dirs cdi-spec-dir",
            "default-address-pools default-address-pool",
            "dns",
            "dns-opts dns-opt",
            "dns-search",
            "exec-opts exec-opt",
            "hosts host",
            "host-gateway-ips",
            "insecure-registries insecure-registry",
            "labels label",
            "node-generic-resources node-generic-resource",
            "registry-mirrors registry-mirror",
            "storage-opts storage-opt",
        ),
        *_table(
            "map",
            "builder",
            "default-network-opts default-network-opt",
            "default-ulimits default-ulimit",
            "features feature",
            "log-opts log-opt",
            "proxies",
            "runtimes add-runtime",
        ),
    )
}

SHORT = {
    "b": "bridge",
    "D": "debug",
    "G": "group",
    "g": "graph",
    "H": "host",
    "l": "log-level",
    "p": "pidfile",
    "s": "storage-driver",
}
"""Short flags and the long ones they stand for."""

FLAGS: dict[str, Option] = {option.flag: option for option in OPTIONS.values()}

MERGED = frozenset({"runtimes"})
"""Keys that may stand in the file and on the command line at once."""


class Flag(Struct, frozen=True):
    """A flag as given: the key of daemon.json that it sets, its value, and the words it was written in."""

    key: str
    value: str
    text: str


def parse_flags(argv: tuple[str, ...]) -> tuple[Flag, ...]:
    """Read dockerd's arguments (without the program) as pflag does: `--x=y`, `--x y`, `-Hy`, `-H y`, `-Dl debug`.

    Words that are no flags, and flags of unknown name, are left out.

    >>> [(flag.key, flag.value) for flag in parse_flags(("-H", "fd://", "--icc=false", "-D"))]
    [('hosts', 'fd://'), ('icc', 'false'), ('debug', 'true')]
    """
    flags: list[Flag] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = FLAGS.get(name)
            if equals:
                text = word
            elif option is not None and option.type == "bool":
                value, text = "true", word
            else:
                value = rest.pop(0) if rest else ""
                text = f"{word} {value}"
            if option is not None:
                flags.append(Flag(option.key, value, text))
        elif word.startswith("-") and len(word) > 1:
            flags += _short(word, rest)
    return tuple(flags)


def _short(word: str, rest: list[str]) -> list[Flag]:
    """Read one word of short flags; takes a value from `rest` when the last of them wants one."""
    flags: list[Flag] = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = FLAGS.get(SHORT.get(letter, ""))
        if option is None:
            return flags
        if option.type == "bool" and not letters.startswith("="):
            flags.append(Flag(option.key, "true", "-" + letter))
            continue
        value = letters.removeprefix("=") or (rest.pop(0) if rest else "")
        flags.append(Flag(option.key, value, f"-{letter} {value}"))
        return flags
    return flags


def config_path(argv: tuple[str, ...]) -> str:
    """Give the path of daemon.json that these arguments (without the program) lead to."""
    for flag in parse_flags(argv):
        if flag.key == "config-file" and flag.value:
            return flag.value
    return OPTIONS["config-file"].default
