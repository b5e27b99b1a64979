"""Containers as the API inspects them, or as the disk has them when the daemon cannot be asked.

What is unsettled (came, went or changed while the snapshot was taken) is kept apart: no check judges it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.clock import epoch
from doctor.facts.inspected import (
    HealthLog,
    HostSettings,
    Inspected,
    IpamConfig,
    Listed,
    PortBinding,
)
from doctor.facts.processes import Processes
from doctor.model import Citation
from doctor.places import in_run
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

LATE = 60.0
"""Seconds by which a process may seem to have started before its container did: clocks drift, a pid reused does not."""

SHARED_KERNEL = frozenset(
    {"", "runc", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "crun", "nvidia", "youki"}
)
"""Runtimes whose containers are processes of the host; of any other (gVisor, Kata) nothing of the kind is known."""


class Endpoint(Struct, frozen=True):
    """A container's place in one network; addresses are empty strings when it has none.

    `static` are the addresses that it was told to have (`--ip`), which it also holds claim to while it is stopped.
    `priority`: of several networks the one with the highest is the way out.
    """

    network: str
    network_id: str
    address: str
    prefix: int
    gateway: str
    address6: str
    gateway6: str
    mac: str
    static: tuple[str, ...] = ()
    priority: int = 0


class Port(Struct, frozen=True):
    """A published port: `80/tcp` of the container on a port and address of the host."""

    container: int
    protocol: str
    host: int
    host_ip: str


class Asked(Struct, frozen=True):
    """What a container was created with. `init`: docker-init is its first process.

    `ports` are the published ports as asked for (no port: any; no address: all of them, or the network's default).
    `links` are (target, alias) of --link on the default bridge, by the engine's names; only the API tells them.
    `binds` are (path on the host, path in the container) of bind mounts. `error` is why its last start failed.
    """

    ports: tuple[Port, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    privileged: bool = False
    capabilities: tuple[str, ...] = ()
    binds: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    """Names of the volumes that it mounts."""
    hostname: str = ""
    runtime: str = ""
    error: str = ""
    log_options: dict[str, str] = {}
    log_driver: str = ""
    init: bool = False

    @property
    def own_kernel(self) -> bool:
        """Whether its runtime may bring a kernel or network stack of its own, in which the host's tools see nothing."""
        return self.runtime not in SHARED_KERNEL


class Container(Struct, frozen=True):
    """One container. `name` is what a person calls it (Compose: `project/service`), `engine_name` what docker does.

    `started`, `created` and `finished` are in seconds since the epoch, 0 when it never did; `policy` is the restart policy
    (`no`, `always`, ...), `retries` how often `on-failure` may try (0: for ever), `restarts` how often it did since the last
    start by hand. `error` is why the last start failed. `health` is empty without a health check; `failing` counts probes
    that failed in a row, `probes` are start and exit code of the last ones. `memory` (bytes) and `pids_limit` are 0 for
    none. `program` is what is started, `stop_signal` what `docker stop` sends first, `stop_timeout` (seconds) how long it
    waits.
    `opened` are ports opened for direct routing, on no port of the host (`host` 0).
    """

    id: str
    name: str
    engine_name: str
    running: bool
    status: str
    pid: int
    started: float
    sandbox: str
    endpoints: tuple[Endpoint, ...]
    ports: tuple[Port, ...]
    policy: str
    auto_remove: bool
    image: str
    image_id: str
    network_mode: str
    cited: Citation
    asked: Asked
    exposed: tuple[tuple[int, str], ...] = ()
    """Ports that the image or the user exposes, published or not, while it runs: number and protocol."""
    opened: tuple[Port, ...] = ()
    created: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    restarts: int = 0
    retries: int = 0
    health: str = ""
    failing: int = 0
    probes: tuple[tuple[float, int], ...] = ()
    program: str = ""
    memory: int = 0
    pids_limit: int = 0
    stop_signal: str = ""
    stop_timeout: int = 10
    driver: str = ""
    """The storage driver that its layer is of; empty when that is not known."""
    project: str = ""
    """The Compose project that it is of."""

    @property
    def scope(self) -> str:
        """What a finding about this container alone is about."""
        return f"container {self.name}"

    def cite(self, excerpt: str, place: str = "") -> Citation:
        """Cite what the engine says of it; `place` is where in that, by a name that a person knows."""
        return Citation(self.cited.record, self.cited.line, excerpt, place or self.cited.place)

    @property
    def own_network(self) -> bool:
        """Whether it has a network namespace of its own, with links in it."""
        return self.network_mode not in {"host", "none"} and not self.network_mode.startswith("container:")

    @property
    def stays_down(self) -> bool:
        """Whether it stays down when the daemon restarts and stops it."""
        return self.policy not in {"always", "unless-stopped", "on-failure"} or self.auto_remove


class Containers(Struct, frozen=True):
    """All settled containers, by name; `source` is `API` or `disk`; `unsettled` are names that no check judges.

    `complete` is false when a container that is there could not be read.
    """

    all: tuple[Container, ...]
    unsettled: tuple[str, ...]
    unsettled_ids: frozenset[str]
    source: str
    complete: bool
    changing: tuple[Container, ...] = ()
    """The unsettled ones as they were inspected: one that restarts again and again is never settled."""

    @property
    def running(self) -> tuple[Container, ...]:
        """Those that run."""
        return tuple(one for one in self.all if one.running)


def _listing(record: Record) -> dict[str, tuple[str, str, Any]]:
    """Read a list of containers: id → name, state, network settings. Raises EvidenceMissing for what is none."""
    try:
        found = msgspec.json.decode(record.data, type=list[Listed])
    except UNDECODABLE as error:
        raise EvidenceMissing("API", f"/containers: {error}") from error
    return {one.Id: ((one.Names or [one.Id[:12]])[0].lstrip("/"), one.State, one.NetworkSettings) for one in found}


ON_ITS_WAY = frozenset({"created", "restarting", "removing"})
"""States of a container that may be in the hands of whoever starts or removes it: dockerd holds its lock meanwhile."""


@fact
def containers(snapshot: Snapshot, processes: Processes) -> Containers:
    """Read every inspect; without the API, the files of each container."""
    first = snapshot.get("api/containers")
    if first.readable:
        return _from_api(snapshot, processes, _listing(first))
    return _from_disk(snapshot, first, processes)


def _from_api(snapshot: Snapshot, processes: Processes, before: dict[str, tuple[str, str, Any]]) -> Containers:
    last = snapshot.get("api/containers-last")
    after = _listing(last) if last.readable else before
    unsettled = {identity for identity in before | after if before.get(identity) != after.get(identity)}
    every: list[Container] = []
    changing: list[Container] = []
    complete = True
    for identity, (_, state, _) in before.items():
        record = snapshot.get(f"api/inspect/{identity}")
        if record.status == "failed" and "404" in record.why:
            unsettled.add(identity)
            continue
        # An engine that misses a layer's short link refuses to inspect a container of it (HTTP 500): the disk knows it.
        one = _container(record, identity) or on_disk(snapshot, identity)
        if one is None:
            complete = complete and identity in unsettled  # dockerd holds one that comes or goes, and may not answer
            continue
        process = processes.by_pid.get(one.pid)
        if one.pid in processes.restarted or (process is not None and one.started > process.started + LATE):
            unsettled.add(identity)
        if one.running != (state in {"running", "paused"}):
            unsettled.add(identity)
        if record.status == "timeout" and state in ON_ITS_WAY:
            unsettled.add(identity)
        (changing if identity in unsettled else every).append(one)
    names = {
        identity: (before.get(identity) or after[identity])[0] for identity in unsettled if identity in before | after
    }
    return Containers(
        tuple(sorted(every, key=lambda one: one.name)),
        tuple(sorted(names.values())),
        frozenset(unsettled),
        "API",
        complete,
        tuple(changing),
    )


def _from_disk(snapshot: Snapshot, first: Record, processes: Processes) -> Containers:
    every = []
    complete = True
    folder = snapshot.get("store/containers/")
    if folder.status == "denied":
        raise EvidenceMissing("API", first.why)
    for record in snapshot.under("store/containers/"):
        if not record.name.endswith("/config.v2.json"):
            continue
        identity = record.name.split("/")[2]
        one = on_disk(snapshot, identity)
        if one is None:
            complete = False
            continue
        # The disk says what was true when the daemon last wrote; the process table says what is.
        process = processes.by_pid.get(one.pid)
        running = process is not None and process.container == identity
        every.append(msgspec.structs.replace(one, running=running))
    return Containers(tuple(sorted(every, key=lambda one: one.name)), (), frozenset(), "disk", complete)


def on_disk(snapshot: Snapshot, identity: str) -> Container | None:
    """Read one container as the engine wrote it down; None when that cannot be read."""
    folder = f"store/containers/{identity}"
    return _container(snapshot.get(f"{folder}/config.v2.json"), identity, snapshot.get(f"{folder}/hostconfig.json"))


def _container(record: Record, identity: str, host_config: Record | None = None) -> Container | None:
    if not record.readable:
        return None
    try:
        raw = msgspec.json.decode(record.data, type=Inspected)
        if host_config is not None and host_config.readable:
            raw.HostConfig = msgspec.json.decode(host_config.data, type=HostSettings)
    except UNDECODABLE:
        return None
    settings = raw.NetworkSettings
    name = raw.Name.lstrip("/") or identity[:12]
    health = raw.State.Health or HealthLog()
    return Container(
        id=identity,
        name=_shown(name, raw.Config.Labels or {}),
        engine_name=name,
        running=raw.State.Running and not raw.State.Restarting,
        status=raw.State.Status or ("running" if raw.State.Running else "exited"),
        pid=raw.State.Pid,
        started=epoch(raw.State.StartedAt),
        sandbox=in_run(settings.SandboxKey),
        endpoints=tuple(
            Endpoint(
                network=network,
                network_id=one.NetworkID,
                address=one.IPAddress,
                prefix=one.IPPrefixLen,
                gateway=one.Gateway,
                address6=one.GlobalIPv6Address,
                gateway6=one.IPv6Gateway,
                mac=one.MacAddress,
                static=_static(one.IPAMConfig),
                priority=one.GwPriority,
            )
            for network, one in (settings.Networks or {}).items()
            if one is not None
        ),
        ports=_ports(settings.Ports or {}),
        policy=raw.HostConfig.RestartPolicy.Name or "no",
        auto_remove=raw.HostConfig.AutoRemove,
        image=raw.Config.Image,
        image_id=raw.Image,
        driver=raw.Driver,
        project=(raw.Config.Labels or {}).get("com.docker.compose.project", ""),
        network_mode=raw.HostConfig.NetworkMode,
        cited=Citation(record.name, 1, f"{name} pid {raw.State.Pid}", f"container {name}"),
        asked=_asked(raw),
        exposed=tuple(
            (int(number), protocol or "tcp")
            for number, _, protocol in (one.partition("/") for one in settings.Ports or ())
            if number.isdecimal()
        ),
        opened=_opened(settings.Ports or {}),
        created=epoch(raw.Created),
        finished=epoch(raw.State.FinishedAt),
        exit_code=raw.State.ExitCode,
        oom_killed=raw.State.OOMKilled,
        restarts=raw.RestartCount,
        retries=raw.HostConfig.RestartPolicy.MaximumRetryCount,
        health=health.Status if health.Status != "none" else "",
        failing=health.FailingStreak,
        probes=tuple((epoch(one.Start), one.ExitCode) for one in health.Log or ()),
        program=raw.Path,
        memory=raw.HostConfig.Memory,
        pids_limit=max(raw.HostConfig.PidsLimit or 0, 0),
        stop_signal=raw.Config.StopSignal or "SIGTERM",
        stop_timeout=10 if raw.Config.StopTimeout is None else raw.Config.StopTimeout,
    )


def _asked(raw: Inspected) -> Asked:
    held = raw.HostConfig
    mounts = raw.Mounts or [one for one in (raw.MountPoints or {}).values() if one is not None]
    links = (one.partition(":") for one in held.Links or ())
    return Asked(
        ports=_ports(held.PortBindings) if held.PortBindings else (),
        links=tuple((target.lstrip("/"), alias.rpartition("/")[2]) for target, _, alias in links),
        dns=tuple(held.Dns or ()),
        privileged=held.Privileged,
        capabilities=tuple(held.CapAdd or ()),
        binds=tuple((one.Source, one.Destination) for one in mounts if one.Type == "bind"),
        volumes=tuple(one.Name for one in mounts if one.Type == "volume" and one.Name),
        hostname=raw.Config.Hostname,
        runtime=held.Runtime,
        log_options=held.LogConfig.Config or {},
        log_driver=held.LogConfig.Type,
        error=raw.State.Error,
        init=held.Init is True,
    )


def _static(asked: IpamConfig | None) -> tuple[str, ...]:
    return tuple(one for one in (asked.IPv4Address, asked.IPv6Address) if one) if asked else ()


def _shown(name: str, labels: dict[str, str]) -> str:
    """Call a Compose container `project/service`, with its number from the second on."""
    project, service = labels.get("com.docker.compose.project"), labels.get("com.docker.compose.service")
    number = labels.get("com.docker.compose.container-number", "1")
    if not project or not service:
        return name
    return f"{project}/{service}" if number == "1" else f"{project}/{service}-{number}"


def _ports(bindings: dict[str, list[PortBinding] | None]) -> tuple[Port, ...]:
    ports = []
    for spelled, held in bindings.items():
        number, _, protocol = spelled.partition("/")
        for one in held or ():
            if not number.isdecimal() or not one.HostPort.isdecimal():
                continue
            ports.append(Port(int(number), protocol or "tcp", int(one.HostPort), one.HostIp))
    return tuple(sorted(set(ports), key=lambda port: (port.host, port.protocol, port.host_ip)))


def _opened(bindings: dict[str, list[PortBinding] | None]) -> tuple[Port, ...]:
    ports = []
    for spelled, held in bindings.items():
        number, _, protocol = spelled.partition("/")
        ports += [
            Port(int(number), protocol or "tcp", 0, one.HostIp)
            for one in held or ()
            if number.isdecimal() and not one.HostPort and one.HostIp
        ]
    return tuple(sorted(set(ports), key=lambda port: (port.container, port.protocol, port.host_ip)))
