"""The options of dockerd: key of daemon.json, flag, type, default, accepted values, releases, and what a reload takes.

Source: dockerd(8), moby `cmd/dockerd/config.go`, `daemon/config/config.go` and `daemon/reload.go` of 20.10.24 to 29.7.2, and
20.10.24, 26.1.5 and 28.5.2 themselves. A list flag has a singular name and a plural key (`--host`, `hosts`). dockerd
refuses to start when a key stands both in the file and on its command line, whatever the values
(`findConfigurationConflicts`), except for `runtimes`, which it merges. A key that is the name of a flag, but no key of its
own, is accepted without a word and sets nothing (`"registry-mirror"`: measured on all three).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection

Type = Literal["bool", "string", "number", "list", "map"]
Release = tuple[int, int]
"""Major and minor of a release, (0, 0) for one that is not known."""

NOT_KNOWN: Release = (0, 0)

NEWEST: Release = (29, 7)
"""The newest release whose options are known here: a later one may have more."""


class Option(Struct, frozen=True):
    """One option: its key in daemon.json, its long flag without dashes, its type, its default as text.

    `since` is the first release that has it, `until` the first that has it no more. `parent` is the object in
    daemon.json that it stands in (`proxies`); `flag_only` is one that is no key of the file.
    """

    key: str
    flag: str
    type: Type
    default: str = ""
    since: Release = (0, 0)
    until: Release = (99, 0)
    parent: str = ""
    flag_only: bool = False

    def exists(self, release: Release) -> bool:
        """Whether a release has it; one that is not known has every option."""
        return release == (0, 0) or self.since <= release < self.until


def _release(text: str, otherwise: Release) -> Release:
    major, _, minor = text.partition(".")
    return (int(major), int(minor or 0)) if major else otherwise


def _table(kind: Type, *rows: str, parent: str = "", flag_only: bool = False) -> tuple[Option, ...]:
    """Read rows of `key`, `key=default` or `key flag`, with `@28.2` (since) or `@-25` (no more in) at the end."""
    options = []
    for row in rows:
        words, _, when = row.partition(" @")
        names, _, default = words.partition("=")
        key, _, flag = names.partition(" ")
        since, _, until = when.partition("-")
        first, last = _release(since, (0, 0)), _release(until, (99, 0))
        options.append(Option(key, flag or key, kind, default, first, last, parent, flag_only))
    return tuple(options)


OPTIONS: dict[str, Option] = {
    option.key: option
    for option in (
        *_table(
            "bool",
            "allow-direct-routing=false @28.2",
            "cri-containerd=false",
            "debug=false",
            "experimental=false",
            "icc=true",
            "init=false",
            "ip-forward=true",
            "ip-forward-no-drop=false @28",
            "ip-masq=true",
            "ip6tables=true",
            "iptables=true",
            "ipv6=false",
            "live-restore=false",
            "no-new-privileges=false",
            "raw-logs=false",
            "rootless=false",
            "selinux-enabled=false",
            "tls=false",
            "tlsverify=false",
            "userland-proxy=true",
        ),
        *_table("bool", "help=false", "restart=true", "validate=false @23", "version=false", flag_only=True),
        *_table(
            "string",
            "api-cors-header @-28",
            "bip",
            "bip6 @28",
            "bridge",
            "bridge-accept-fwmark @29",
            "cgroup-parent",
            "cluster-advertise @-24",
            "cluster-store @-24",
            "containerd",
            "containerd-namespace=moby",
            "data-root=/var/lib/docker",
            "default-cgroupns-mode",
            "default-gateway",
            "default-gateway-v6",
            "default-ipc-mode=private",
            "default-runtime=runc",
            "exec-root=/var/run/docker",
            "firewall-backend @29",
            "fixed-cidr",
            "fixed-cidr-v6",
            "graph @-24",
            "group=docker",
            "host-gateway-ip",
            "init-path",
            "ip=0.0.0.0",
            "log-driver=json-file",
            "log-format=text @25",
            "log-level=info",
            "metrics-addr",
            "min-api-version @29",
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
        *_table("string", "http-proxy @23", "https-proxy @23", "no-proxy @23", parent="proxies"),
        *_table(
            "string",
            "config-file=/etc/docker/daemon.json",
            "containerd-plugins-namespace=plugins.moby",
            flag_only=True,
        ),
        *_table(
            "number",
            "cpu-rt-period",
            "cpu-rt-runtime",
            "default-shm-size=64M",
            "default-stop-timeout=10 @29.7",
            "max-concurrent-downloads=3",
            "max-concurrent-uploads=5",
            "max-download-attempts=5",
            "mtu=1500",
            "network-control-plane-mtu=1500",
            "network-diagnostic-port",
            "oom-score-adjust=-500 @-26",
            "shutdown-timeout=15",
        ),
        *_table(
            "list",
            "allow-nondistributable-artifacts",
            "authorization-plugins authorization-plugin",
            "cdi-spec-dirs cdi-spec-dir @25",
            "default-address-pools default-address-pool",
            "dns",
            "dns-opts dns-opt",
            "dns-search",
            "exec-opts exec-opt",
            "hosts host",
            "host-gateway-ips @28",
            "insecure-registries insecure-registry",
            "labels label",
            "node-generic-resources node-generic-resource",
            "registry-mirrors registry-mirror",
            "storage-opts storage-opt",
        ),
        *_table(
            "map",
            "builder",
            "cluster-store-opts cluster-store-opt @-24",
            "default-network-opts default-network-opt @24",
            "default-ulimits default-ulimit",
            "features feature",
            "log-opts log-opt",
            "nri-opts @29.2",
            "proxies @23",
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

NO_FLAG = frozenset({"builder", "proxies", "host-gateway-ips", "min-api-version"})
"""Keys of daemon.json that have no flag of their name."""

MERGED = frozenset({"runtimes"})
"""Keys that may stand in the file and on the command line at once."""

FLAT = frozenset(
    {
        *(
            "builder",
            "cluster-store-opts",
            "default-network-opts",
            "default-ulimits",
            "features",
            "log-opts",
            "nri-opts",
        ),
        "runtimes",
    }
)
"""Objects of daemon.json that dockerd takes as a whole; of any other it looks at the members as if they stood at the top."""

RENAMED = {
    "graph": "data-root",
    "cluster-store": "",
    "cluster-advertise": "",
    "mirror": "registry-mirrors",
    "mirrors": "registry-mirrors",
    "nameserver": "dns",
    "nameservers": "dns",
    "storage-path": "data-root",
    "containerd-plugin-namespace": "",
}
"""Keys that are no option (any more), and the one that took their place; empty where none did."""

HARMLESS = frozenset({"allow-nondistributable-artifacts", "deprecated-key-path"})
"""Keys without a meaning any more that dockerd has been told to accept."""

RELOADED = frozenset(
    {
        *("debug", "default-cgroupns-mode", "default-ipc-mode", "default-runtime", "default-shm-size", "runtimes"),
        *("default-stop-timeout", "features", "insecure-registries", "labels", "live-restore", "nri-opts"),
        *("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "network-diagnostic-port"),
        *("registry-mirrors", "shutdown-timeout"),
    }
)
"""Keys that a dockerd which runs takes from the file on SIGHUP; any other needs a restart (moby daemon/reload.go)."""

ENVIRONMENT = {
    "http-proxy": "HTTP_PROXY",
    "https-proxy": "HTTPS_PROXY",
    "no-proxy": "NO_PROXY",
    "min-api-version": "DOCKER_MIN_API_VERSION",
    "storage-driver": "DOCKER_DRIVER",
}
"""Options that dockerd also takes from its environment, and the variable; a proxy may be in lower case."""

_DEFAULT_BEFORE: dict[str, tuple[Release, str]] = {"ip6tables": ((27, 0), "false")}
"""Defaults that were others up to a release."""


def default(key: str, release: Release) -> str:
    """Give the default of a key in a release; of today's for one that is not known.

    >>> default("ip6tables", (26, 1)), default("ip6tables", (28, 5))
    ('false', 'true')
    """
    changed, before = _DEFAULT_BEFORE.get(key, ((0, 0), ""))
    return before if (0, 0) < release < changed else OPTIONS[key].default


LOG_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug", "trace")
"""In any case of letters; up to 24 `warning` as well (measured: 20.10.24 takes it, 26.1.5 and 28.5.2 refuse it)."""

LOG_FORMATS = ("text", "json")

_WARNING_UNTIL: Release = (25, 0)
"""The first release that takes `warn` and no more `warning` (moby daemon/config/config.go Validate)."""


def level_known(level: str, release: Release) -> bool:
    """Whether a release takes a log-level; of one that is not known, whether any does.

    >>> level_known("WARNING", (24, 0)), level_known("warning", (26, 1)), level_known("", (26, 1))
    (True, False, True)
    """
    return level.lower() in {"", *LOG_LEVELS} or (level.lower() == "warning" and release < _WARNING_UNTIL)


def format_known(name: str) -> bool:
    """Whether a release that has log-format takes this one; they are in lower case."""
    return name in {"", *LOG_FORMATS}


SHIMS_SINCE: Release = (23, 0)
"""The first release in which a runtime may be any shim of containerd, by its type."""


def runtime_known(name: str, configured: Collection[str], release: Release) -> bool:
    """Whether a release takes a default-runtime, where these are configured.

    Any name with a point in it may be a shim's; of a release that is not known it is taken for one.

    >>> runtime_known("io.containerd.kata.v2", (), (20, 10)), runtime_known("io.containerd.kata.v2", (), (26, 1))
    (False, True)
    """
    if name in {"", "runc"} or name in configured:
        return True
    if (0, 0) < release < SHIMS_SINCE:
        return name in {"io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}
    return "." in name and "/" not in name and not name.startswith(".")


_CHOSEN = ("env", "env-regex", "labels", "labels-regex")
LOG_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": frozenset({"max-file", "max-size", "compress", "tag", *_CHOSEN}),
    "local": frozenset({"max-file", "max-size", "compress"}),
    "journald": frozenset({"tag", *_CHOSEN}),
    "syslog": frozenset(
        {
            *("syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert"),
            *("syslog-tls-key", "syslog-tls-skip-verify", "tag", *_CHOSEN),
        }
    ),
    "gelf": frozenset(
        {
            *("gelf-address", "gelf-compression-level", "gelf-compression-type", "gelf-tcp-max-reconnect"),
            *("gelf-tcp-reconnect-delay", "tag", *_CHOSEN),
        }
    ),
}
"""The log options that each driver takes, in every release from 20.10 on; drivers of which these differ are left out."""

LOG_OPTIONS_OF_ALL = frozenset({"mode", "max-buffer-size"})
"""Log options that any driver takes."""


def standing(key: str, release: Release) -> Literal["option", "ignored", "harmless", "unknown", "unsure"]:
    """Say what dockerd makes of a key at the top of daemon.json: it sets something, nothing, or dockerd refuses to start.

    `unsure` is a key that nobody knows, of a release that is newer than this table.

    >>> standing("registry-mirrors", (28, 5)), standing("registry-mirror", (28, 5)), standing("bip6", (26, 1))
    ('option', 'ignored', 'unknown')
    """
    option = OPTIONS.get(key)
    if option is not None and option.exists(release) and not option.flag_only and not option.parent:
        return "option"
    if key in HARMLESS:
        return "harmless"
    flag = FLAGS.get(key)
    if flag is not None and flag.exists(release) and key not in NO_FLAG:
        return "ignored"
    return "unsure" if release > NEWEST else "unknown"


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
