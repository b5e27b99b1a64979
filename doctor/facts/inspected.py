"""What the Engine API says of a container (GET /containers/json, /containers/ID/json), as far as it is read."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class IpamConfig(Struct):
    """Addresses that were asked for (`--ip`)."""

    IPv4Address: str = ""
    IPv6Address: str = ""


class EndpointSettings(Struct):
    """One network of a container."""

    IPAMConfig: IpamConfig | None = None
    NetworkID: str = ""
    Gateway: str = ""
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    GlobalIPv6Address: str = ""
    MacAddress: str = ""
    GwPriority: int = 0


class PortBinding(Struct):
    """Where a port is published."""

    HostIp: str = ""
    HostPort: str = ""


class Networking(Struct):
    """Its network namespace, published ports, and networks."""

    SandboxKey: str = ""
    Ports: dict[str, list[PortBinding] | None] | None = None
    Networks: dict[str, EndpointSettings | None] | None = None


class Probe(Struct):
    """One run of its health check."""

    Start: str = ""
    ExitCode: int = 0


class HealthLog(Struct):
    """Its health check."""

    Status: str = ""
    FailingStreak: int = 0
    Log: list[Probe] | None = None


class RunState(Struct):
    """Whether it runs, and how it ended."""

    Running: bool = False
    Restarting: bool = False
    Status: str = ""
    Pid: int = 0
    StartedAt: str = ""
    FinishedAt: str = ""
    ExitCode: int = 0
    OOMKilled: bool = False
    Error: str = ""
    Health: HealthLog | None = None


class Policy(Struct):
    """Its restart policy."""

    Name: str = ""
    MaximumRetryCount: int = 0


class Logging(Struct):
    """Its log driver."""

    Type: str = ""
    Config: dict[str, str] | None = None


class HostSettings(Struct):
    """What it was asked to be made with, of this host."""

    NetworkMode: str = ""
    RestartPolicy: Policy = field(default_factory=Policy)
    AutoRemove: bool = False
    PortBindings: dict[str, list[PortBinding] | None] | None = None
    Links: list[str] | None = None
    Dns: list[str] | None = None
    Privileged: bool = False
    CapAdd: list[str] | None = None
    Runtime: str = ""
    Init: bool | None = None
    LogConfig: Logging = field(default_factory=Logging)
    Memory: int = 0
    PidsLimit: int | None = None


class ImageSettings(Struct):
    """What it was asked to be made with, of its image."""

    Image: str = ""
    Labels: dict[str, str] | None = None
    Hostname: str = ""
    StopSignal: str = ""
    StopTimeout: int | None = None


class MountPoint(Struct):
    """One mount."""

    Type: str = ""
    Name: str = ""
    Source: str = ""
    Destination: str = ""


class Inspected(Struct):
    """The part of `GET /containers/ID/json` and of config.v2.json that checks need; both spell it alike."""

    Id: str = ""
    ID: str = ""
    Name: str = ""
    Image: str = ""
    Created: str = ""
    Path: str = ""
    RestartCount: int = 0
    Driver: str = ""
    State: RunState = field(default_factory=RunState)
    Config: ImageSettings = field(default_factory=ImageSettings)
    HostConfig: HostSettings = field(default_factory=HostSettings)
    NetworkSettings: Networking = field(default_factory=Networking)
    Mounts: list[MountPoint] | None = None
    MountPoints: dict[str, MountPoint | None] | None = None


class Listed(Struct):
    """One row of the list of containers."""

    Id: str = ""
    Names: list[str] | None = None
    State: str = ""
    NetworkSettings: Any = None
