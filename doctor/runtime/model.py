"""What a host of ours is told, and what it knows: settings, networks, containers, images. Values, no behaviour.

Words are those of `docker run`, `docker network create` and daemon.json; ids are 64 hexadecimal digits, as the engine's.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

State = Literal["created", "running", "paused", "restarting", "exited", "dead"]
"""As `docker ps` says it. An OCI runtime says `stopped` for `exited`."""

LogLevel = Literal["debug", "info", "warn", "error", "fatal"]


class Publish(Struct, frozen=True):
    """One `-p`: `port`/`protocol` of the container on `host_port` of `host_ip`.

    `host_port` 0 lets the daemon choose, or else one of those up to `host_port_end` where that is not 0; an empty
    `host_ip` stands for every address, of both families.
    """

    port: int
    protocol: str = "tcp"
    host_port: int = 0
    host_ip: str = ""
    host_port_end: int = 0


class Attachment(Struct, frozen=True):
    """A network that a container asks for: its name, a fixed address of either family, the names it wants there.

    The one with the highest `priority` is its way out (`gw-priority`, since 28).
    """

    network: str
    ip: str = ""
    ip6: str = ""
    aliases: tuple[str, ...] = ()
    mac: str = ""
    priority: int = 0


class Bind(Struct, frozen=True):
    """A mount: `kind` is `bind` (a path of the host), `volume` (a name) or `tmpfs` (no source)."""

    kind: Literal["bind", "volume", "tmpfs"]
    source: str
    target: str
    readonly: bool = False
    options: str = ""


class Limits(Struct, frozen=True):
    """Limits of a control group, 0 for none: `memory` in bytes, `pids` in processes, `cpus` in processors."""

    memory: int = 0
    pids: int = 0
    cpus: float = 0.0


class ContainerSpec(Struct, frozen=True):
    """What `docker run` was told.

    `network_mode` is empty for the networks in `networks` (none: the default bridge), else `host`, `none` or
    `container:NAME`; `pid_mode` and `ipc_mode` are empty, `host` or `container:NAME`. `entrypoint` None takes the image's;
    `command` empty takes the image's. `ulimits` are name → (soft, hard). `links` are NAME:ALIAS of the default bridge.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    network_mode: str = ""
    networks: tuple[Attachment, ...] = ()
    pid_mode: str = ""
    ipc_mode: str = ""
    publish: tuple[Publish, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    mounts: tuple[Bind, ...] = ()
    readonly: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    sysctls: dict[str, str] = {}
    ulimits: dict[str, tuple[int, int]] = {}
    limits: Limits = Limits()
    tty: bool = False
    interactive: bool = False
    init: bool = False
    restart: str = "no"
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int = 10
    health: tuple[str, ...] = ()
    """The test of a health check as the engine keeps it: `("CMD-SHELL", "true")`."""
    health_interval: float = 30.0
    health_timeout: float = 30.0
    health_retries: int = 3
    health_start: float = 0.0
    auto_remove: bool = False
    attached: bool = False
    """Whether whoever made it reads its output (`run` without `-d`)."""
    log_driver: str = ""
    log_options: dict[str, str] = {}
    shm_size: int = 64 << 20


class Pool(Struct, frozen=True):
    """An IPAM pool: `subnet` (`10.7.0.0/24`), the part of it that containers get (`range`), the gateway; empty: chosen."""

    subnet: str
    range: str = ""
    gateway: str = ""
    aux: dict[str, str] = {}


class NetworkSpec(Struct, frozen=True):
    """What `docker network create` was told; `options` are the bridge driver's, by their whole key."""

    name: str
    driver: Literal["bridge", "host", "null"] = "bridge"
    pools: tuple[Pool, ...] = ()
    internal: bool = False
    ipv4: bool = True
    ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class Network(Struct, frozen=True):
    """A network as the daemon knows it: `bridge` is the name of its link, pools have their subnet and gateway."""

    id: str
    spec: NetworkSpec
    bridge: str
    pools: tuple[Pool, ...]
    created: str


class Endpoint(Struct, frozen=True):
    """A container's place in a network. `interface` is its name inside, `veth` that of the end on the host.

    `address` and `address6` are without prefix length; `names` is what the network's DNS knows it by.
    """

    network_id: str
    id: str
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    mac: str = ""
    interface: str = ""
    veth: str = ""
    names: tuple[str, ...] = ()


class Bound(Struct, frozen=True):
    """A published port in force; `proxy` is the pid of its docker-proxy, 0 for none."""

    port: int
    protocol: str
    host_ip: str
    host_port: int
    proxy: int = 0


class Container(Struct, frozen=True):
    """A container as the daemon knows it. Times are RFC 3339 with nanoseconds, as the engine writes them; empty: never.

    `sandbox` is the path of its network namespace (`/run/docker/netns/...`), `pid` and `shim` are 0 while it does not run.
    """

    id: str
    spec: ContainerSpec
    image_id: str
    state: State = "created"
    pid: int = 0
    shim: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    created: str = ""
    started: str = ""
    finished: str = ""
    restarts: int = 0
    sandbox: str = ""
    sandbox_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Bound, ...] = ()
    mount_id: str = ""
    """The cache-id of its writable layer."""
    links: dict[str, str] = {}
    """Of `--link`: alias → the id of the container that it leads to."""
    manually_stopped: bool = False
    """Whether a person stopped it: `unless-stopped` then keeps it down at the next start of the daemon."""
    health: str = ""
    """`starting`, `healthy` or `unhealthy`; empty without a health check."""
    failing: int = 0
    """Health probes that failed in a row."""


class Layer(Struct, frozen=True):
    """One layer in the store: `folder` is its diff folder, `size` its bytes as the engine counts them."""

    diff_id: str
    chain_id: str
    cache_id: str
    folder: str
    size: int


class Image(Struct, frozen=True):
    """An image: its config as the OCI has it, its tags (`busybox:latest`) and its layers, lowest first."""

    id: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    created: str = ""


class Settings(Struct, frozen=True):
    """The configuration in force: daemon.json and flags put together; `values` has every option by its key in the file.

    `dialect` is a name of `doctor.engine.rules.DIALECTS` or `29-nftables`, `version` the release that the daemon says it is.
    """

    dialect: str
    version: str
    values: dict[str, Any]
    flags: tuple[str, ...] = ()


class World(Struct):
    """Everything that one daemon knows, by id. The only mutable value here: the daemon owns it, others read it."""

    settings: Settings
    networks: dict[str, Network]
    containers: dict[str, Container]
    images: dict[str, Image]
    next_address: dict[str, int] = {}
