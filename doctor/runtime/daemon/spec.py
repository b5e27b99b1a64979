"""A container as the API and the data root spell it: Config and HostConfig, to and from `ContainerSpec`.

Source: moby api/types/container (config.go, hostconfig.go), and what 20.10.24, 26.1.5 and 28.5.2 answer for the same
`docker run`. What this runtime has no counterpart for is accepted, and said as its default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from doctor.runtime.model import Attachment, Bind, ContainerSpec, Limits, Publish

if TYPE_CHECKING:
    from doctor.runtime.daemon.generation import Release
    from doctor.runtime.model import Image

SECOND = 1_000_000_000
DEFAULT_MODES = frozenset({"", "default", "bridge"})
"""Network modes that mean the default bridge."""
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SINCE_28 = frozenset({"/proc/interrupts"})


class SpecError(ValueError):
    """What a container was asked to be cannot be; the message is the engine's."""


# From the API


def parse(body: dict[str, Any], name: str) -> ContainerSpec:
    """Read the body of POST /containers/create, or Config with HostConfig in it. Raises SpecError."""
    host = body.get("HostConfig") or {}
    restart = host.get("RestartPolicy") or {}
    policy = restart.get("Name") or "no"
    if policy == "on-failure" and restart.get("MaximumRetryCount"):
        policy = f"on-failure:{restart['MaximumRetryCount']}"
    mode = host.get("NetworkMode") or ""
    special = mode in {"host", "none"} or mode.startswith("container:")
    log = host.get("LogConfig") or {}
    health = body.get("Healthcheck") or {}
    entrypoint = body.get("Entrypoint")
    return ContainerSpec(
        name=name,
        image=str(body.get("Image") or ""),
        command=_words(body.get("Cmd")),
        entrypoint=None if entrypoint is None else _words(entrypoint),
        env=tuple(body.get("Env") or ()),
        workdir=body.get("WorkingDir") or "",
        user=body.get("User") or "",
        hostname=body.get("Hostname") or "",
        domainname=body.get("Domainname") or "",
        network_mode=mode if special else "",
        networks=() if special else _networks(mode, (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}),
        pid_mode=host.get("PidMode") or "",
        ipc_mode="" if host.get("IpcMode") in {None, "private", "shareable"} else str(host["IpcMode"]),
        publish=_publish(host.get("PortBindings") or {}),
        publish_all=bool(host.get("PublishAllPorts")),
        expose=tuple(body.get("ExposedPorts") or ()),
        links=tuple(one.lstrip("/") for one in host.get("Links") or ()),
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_options=tuple(host.get("DnsOptions") or ()),
        extra_hosts=tuple(host.get("ExtraHosts") or ()),
        mounts=_mounts(host),
        readonly=bool(host.get("ReadonlyRootfs")),
        privileged=bool(host.get("Privileged")),
        cap_add=tuple(host.get("CapAdd") or ()),
        cap_drop=tuple(host.get("CapDrop") or ()),
        no_new_privileges=any(one.startswith("no-new-privileges") for one in host.get("SecurityOpt") or ()),
        sysctls=dict(host.get("Sysctls") or {}),
        ulimits={one["Name"]: (one["Soft"], one["Hard"]) for one in host.get("Ulimits") or ()},
        limits=Limits(
            int(host.get("Memory") or 0), max(int(host.get("PidsLimit") or 0), 0), (host.get("NanoCpus") or 0) / 1e9
        ),
        tty=bool(body.get("Tty")),
        interactive=bool(body.get("OpenStdin")),
        init=bool(host.get("Init")),
        restart=policy,
        labels=dict(body.get("Labels") or {}),
        stop_signal=body.get("StopSignal") or "",
        stop_timeout=10 if body.get("StopTimeout") is None else int(body["StopTimeout"]),
        health=tuple(health.get("Test") or ()),
        health_interval=(health.get("Interval") or 30 * SECOND) / SECOND,
        health_timeout=(health.get("Timeout") or 30 * SECOND) / SECOND,
        health_retries=int(health.get("Retries") or 3),
        health_start=(health.get("StartPeriod") or 0) / SECOND,
        auto_remove=bool(host.get("AutoRemove")),
        attached=bool(body.get("AttachStdout")),
        log_driver=log.get("Type") or "",
        log_options=dict(log.get("Config") or {}),
        shm_size=int(host.get("ShmSize") or 64 << 20),
    )


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def _networks(mode: str, asked: dict[str, Any]) -> tuple[Attachment, ...]:
    """Give the networks that are asked for, that of the network mode first; none for the default bridge alone."""
    first = "bridge" if mode in DEFAULT_MODES else mode
    named = {("bridge" if name in DEFAULT_MODES else name): one or {} for name, one in asked.items()}
    order = [first, *(name for name in named if name != first)]
    found = tuple(_attachment(name, named.get(name, {})) for name in order)
    return () if found == (Attachment("bridge"),) else found


def _attachment(name: str, asked: dict[str, Any]) -> Attachment:
    fixed = asked.get("IPAMConfig") or {}
    return Attachment(
        name,
        fixed.get("IPv4Address") or "",
        fixed.get("IPv6Address") or "",
        tuple(asked.get("Aliases") or ()),
        "" if asked.get("EndpointID") else asked.get("MacAddress") or "",
        int(asked.get("GwPriority") or 0),
    )


def _publish(bindings: dict[str, Any]) -> tuple[Publish, ...]:
    found = []
    for spelled, held in bindings.items():
        number, _, protocol = spelled.partition("/")
        for one in held or [{}]:
            port, _, last = str(one.get("HostPort") or "0").partition("-")
            if not number.isdecimal() or not port.isdecimal() or not (last or "0").isdecimal():
                raise SpecError(f"invalid port specification: {spelled!r}")
            ports = (int(number), protocol or "tcp", int(port), one.get("HostIp") or "", int(last or 0))
            found.append(Publish(*ports))
    return tuple(found)


def _mounts(host: dict[str, Any]) -> tuple[Bind, ...]:
    found = [_bind(text) for text in host.get("Binds") or ()]
    for one in host.get("Mounts") or ():
        kind: Literal["bind", "volume", "tmpfs"] = one.get("Type") or "volume"
        found.append(Bind(kind, one.get("Source") or "", one["Target"], bool(one.get("ReadOnly"))))
    found += [Bind("tmpfs", "", target, options=text) for target, text in (host.get("Tmpfs") or {}).items()]
    return tuple(found)


def _bind(text: str) -> Bind:
    parts = text.split(":")
    if len(parts) == 1:
        parts = ["", parts[0]]
    source, target = parts[0], parts[1]
    if not target.startswith("/"):
        kind = "bind" if source.startswith("/") else "volume"
        raise SpecError(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": invalid mount path: "
            f"'{target}' mount path must be absolute"
        )
    options = parts[2] if len(parts) > 2 else ""  # noqa: PLR2004 - source, target, options
    return Bind("bind" if source.startswith("/") else "volume", source, target, "ro" in options.split(","), options)


def settled(spec: ContainerSpec, image: Image) -> ContainerSpec:
    """Fill in what the image says, as the engine does once at creation. Raises SpecError where there is no command."""
    held = image.config.get("config") or {}
    entrypoint, command = spec.entrypoint, spec.command
    if entrypoint is None:
        command = command or tuple(held.get("Cmd") or ())
        entrypoint = tuple(held.get("Entrypoint") or ()) or None
    if not (entrypoint or ()) and not command:
        raise SpecError("no command specified")
    names = {one.partition("=")[0] for one in spec.env}
    env = (*spec.env, *(one for one in held.get("Env") or () if one.partition("=")[0] not in names))
    ports = (*spec.expose, *(held.get("ExposedPorts") or ()))
    published = (f"{one.port}/{one.protocol}" for one in spec.publish)
    return replace(
        spec,
        command=command,
        entrypoint=entrypoint,
        env=env,
        workdir=spec.workdir or held.get("WorkingDir") or "",
        user=spec.user or held.get("User") or "",
        expose=tuple(dict.fromkeys((*ports, *published))),
        labels={**(held.get("Labels") or {}), **spec.labels},
        stop_signal=spec.stop_signal or held.get("StopSignal") or "",
    )


# To the API


def argv(spec: ContainerSpec) -> tuple[str, ...]:
    """Give what is run: entry point, then command."""
    return (*(spec.entrypoint or ()), *spec.command)


def config(spec: ContainerSpec, identity: str) -> dict[str, Any]:
    """Give Config, in the engine's order of keys."""
    found: dict[str, Any] = {
        "Hostname": spec.hostname or identity[:12],
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": spec.attached and spec.interactive,
        "AttachStdout": spec.attached,
        "AttachStderr": spec.attached,
    }
    if spec.expose:
        found["ExposedPorts"] = {_port(one): {} for one in sorted(spec.expose)}
    found |= {
        "Tty": spec.tty,
        "OpenStdin": spec.interactive,
        "StdinOnce": spec.attached and spec.interactive,
        "Env": list(spec.env) or None,
        "Cmd": list(spec.command) or None,
    }
    if spec.health:
        found["Healthcheck"] = {"Test": list(spec.health), "Interval": int(spec.health_interval * SECOND)}
        if spec.health_timeout != 30:  # noqa: PLR2004 - the default
            found["Healthcheck"]["Timeout"] = int(spec.health_timeout * SECOND)
        if spec.health_retries != 3:  # noqa: PLR2004 - the default
            found["Healthcheck"]["Retries"] = spec.health_retries
    found |= {
        "Image": spec.image,
        "Volumes": None,
        "WorkingDir": spec.workdir,
        "Entrypoint": list(spec.entrypoint) if spec.entrypoint else None,
        "OnBuild": None,
        "Labels": spec.labels,
    }
    if spec.stop_signal:
        found["StopSignal"] = spec.stop_signal
    if spec.stop_timeout != 10:  # noqa: PLR2004 - the default
        found["StopTimeout"] = spec.stop_timeout
    return found


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def bindings(spec: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    """Give PortBindings: what was asked for, by port of the container."""
    found: dict[str, list[dict[str, str]]] = {}
    for one in spec.publish:
        port = f"{one.host_port}-{one.host_port_end}" if one.host_port_end else str(one.host_port or "")
        asked = {"HostIp": one.host_ip, "HostPort": port}
        found.setdefault(f"{one.port}/{one.protocol}", []).append(asked)
    return found


def network_mode(spec: ContainerSpec, release: Release) -> str:
    """Say the network mode as this release does: the default bridge has had two names."""
    if spec.network_mode or spec.networks:
        return spec.network_mode or spec.networks[0].network
    return "default" if release < (26, 0) else "bridge"


def host_config(
    spec: ContainerSpec, release: Release, links: list[str] | None, runtime: str = "runc"
) -> dict[str, Any]:
    """Give HostConfig, in the engine's order of keys; `links` as they are to be told."""
    policy, _, most = spec.restart.partition(":")
    volumes = [one for one in spec.mounts if one.kind != "tmpfs"]
    nothing: list[Any] | None = None if release < (23, 0) else []
    found: dict[str, Any] = {
        "Binds": [_spelled(one) for one in volumes] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": spec.log_driver or "json-file", "Config": spec.log_options},
        "NetworkMode": network_mode(spec, release),
        "PortBindings": bindings(spec),
        "RestartPolicy": {"Name": policy or "no", "MaximumRetryCount": int(most or 0)},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": [0, 0],
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "CgroupnsMode": "host",
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": None,
        "IpcMode": spec.ipc_mode or "private",
        "Cgroup": "",
        "Links": links,
        "OomScoreAdj": 0,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.readonly,
        "SecurityOpt": _security(spec),
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": spec.shm_size,
    }
    if spec.sysctls:
        found["Sysctls"] = spec.sysctls
    tmpfs = {one.target: one.options for one in spec.mounts if one.kind == "tmpfs"}
    if tmpfs:
        found["Tmpfs"] = tmpfs
    found |= {
        "Runtime": runtime,
        "Isolation": "",
        "CpuShares": 0,
        "Memory": spec.limits.memory,
        "NanoCpus": int(spec.limits.cpus * 1e9),
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        **{f"BlkioDevice{way}": nothing for way in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")},
        **dict.fromkeys(("CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime"), 0),
        **dict.fromkeys(("CpusetCpus", "CpusetMems"), ""),
        "Devices": [],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
    }
    if release < (23, 0):
        found |= {"KernelMemory": 0, "KernelMemoryTCP": 0}
    ulimits = [{"Name": name, "Hard": hard, "Soft": soft} for name, (soft, hard) in spec.ulimits.items()]
    found |= {
        "MemoryReservation": 0,
        "MemorySwap": spec.limits.memory * 2,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": spec.limits.pids or None,
        "Ulimits": ulimits or nothing,
        **dict.fromkeys(("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"), 0),
        "MaskedPaths": None
        if spec.privileged
        else [one for one in _MASKED if release >= (28, 0) or one not in _SINCE_28],
        "ReadonlyPaths": None if spec.privileged else list(_READONLY),
    }
    if spec.init:
        found["Init"] = True
    return found


def _security(spec: ContainerSpec) -> list[str] | None:
    if spec.privileged or spec.pid_mode == "host":
        return ["label=disable"]
    return ["no-new-privileges"] if spec.no_new_privileges else None


def _spelled(one: Bind) -> str:
    options = one.options or ("ro" if one.readonly else "")
    return f"{one.source}:{one.target}" + (f":{options}" if options else "")
