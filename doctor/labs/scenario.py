"""A scenario: a healthy host, what breaks it, what then must be measured, found and healed. One TOML file each.

`doctor.labs.loading` reads one. The kinds of faults are in `doctor.labs.faults`, those of probes below.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from msgspec import Struct

from doctor.labs.faults import Fault

SCHEMA = 1
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
"""The engine's own rule for names of containers (moby daemon/names): two characters at least."""

Dialect = Literal["20.10", "26", "28", "29", "29-nftables"]
Area = Literal["daemon", "network", "ports", "names", "layers", "containers", "processes", "exposure"]
Need = Literal["root", "iptables", "iptables-legacy", "nft", "bridge-filter", "sysctls", "cgroups", "busybox"]
"""Rows of the table in docs/runtime.md that a scenario cannot do without."""
Fate = Literal["open", "refused", "filtered", "unreachable"]


class NetworkTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A network that is created; `docker0` is there without being named. `options` are the bridge driver's."""

    subnet: str = ""
    gateway: str = ""
    range: str = ""
    internal: bool = False
    icc: bool = True
    ipv6: bool = False
    mtu: int = 0
    options: dict[str, str] = {}


class ContainerTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A container that is started, in the words of `docker run`.

    `listen` are real listeners inside: `80/tcp`, `127.0.0.1:80/tcp`; without `command` the container serves them, and idles
    where there are none. `state` is what it is in while the host is healthy.
    """

    image: str = ""
    network: str = ""
    networks: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    ip: str = ""
    links: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    restart: str = "no"
    hostname: str = ""
    init: bool = False
    volumes: tuple[str, ...] = ()
    memory: str = ""
    state: Literal["running", "created", "exited"] = "running"


class Probe(Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "target": "to"}):
    """What is measured, never by doctor itself. One of `to`, `run`, `file`, `process`, `log`.

    `to`: a connection from `from` to `CONTAINER:PORT[/udp]`, `host:PORT`, `outside:PORT` or `ADDRESS:PORT`: `open` (somebody
    answered), `refused`, `filtered` (nothing came back), `unreachable` (no route, or a router says no).
    `run`: a command in the host: `works`, `fails`, or `hangs` (after `seconds`).
    `says`: its output, by a regular expression: then `works` is what matches. `file`: `there` or `gone`. `process`: a
    pattern for the command line, as `pgrep -f`: `runs`, `gone`, `stopped`, `zombie`. `log`: a pattern for lines that dockerd
    writes while a request is made to it: `written` or `silent`.
    """

    healthy: str
    broken: str
    source: str = "host"
    target: str = ""
    run: str = ""
    says: str = ""
    file: str = ""
    process: str = ""
    log: str = ""
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """Which of the five it is."""
        return next((kind for kind in WORDS if getattr(self, "target" if kind == "to" else kind)), "")


WORDS: dict[str, tuple[str, ...]] = {
    "to": ("open", "refused", "filtered", "unreachable"),
    "run": ("works", "fails", "hangs"),
    "file": ("there", "gone"),
    "process": ("runs", "gone", "stopped", "zombie"),
    "log": ("written", "silent"),
}
"""The kinds of probes, and what each may measure."""


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """What doctor must say of the broken host.

    Each of `codes` is found and nothing else but those of `also`; `root` is the first cause, and with `level` info a note;
    each of `silent` was judged and found nothing. `cure` is the code whose printed cure heals; `person` is done instead
    where it has steps that no machine can do. `options` are given to `doctor check`.
    """

    codes: tuple[str, ...]
    root: str = ""
    cure: str = ""
    also: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    level: Literal["error", "warning", "info"] = "error"
    unproved: Literal["", "warning"] = ""
    """The level where rules are judged by a dialect that no live engine was compared with (29); empty: the same."""
    options: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    """Causes of their own, of what making the fault needs."""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, rename={"symptom": "try", "faults": "fault"}):
    """A scenario, as its file has it. `name` is the file's."""

    schema: Literal[1]
    title: str
    area: Area
    minutes: int
    teaches: str
    story: str
    symptom: str
    hints: tuple[str, ...]
    expect: Expect
    dialects: tuple[Dialect, ...] = ("20.10", "26", "28")
    needs: tuple[Need, ...] = ()
    live: str = ""
    """Why it is not replayed on live engines; empty: it is, on those of its dialects."""
    lab: str = ""
    """Why it cannot be played in a lab yet; empty: it can."""
    daemon: dict[str, Any] = {}
    """daemon.json of the healthy host."""
    flags: tuple[str, ...] = ()
    """What dockerd is started with beside."""
    files: dict[str, str] = {}
    network: dict[str, NetworkTable] = {}
    container: dict[str, ContainerTable] = {}
    prepare: tuple[Fault, ...] = ()
    """Done while the host is healthy, and leaves it so."""
    faults: tuple[Fault, ...] = ()
    probe: tuple[Probe, ...] = ()
    person: tuple[Fault, ...] = ()
    """What a person does for the cure, where it has a step that no machine can do."""
    name: str = ""

    def sentence(self, text: str) -> str:
        """Put a text of several lines into one."""
        return " ".join(text.split())
