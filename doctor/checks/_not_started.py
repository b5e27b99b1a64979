"""Containers that dockerd could not start, by the words that it kept of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.checks._ends import again, down, missed
from doctor.model import (
    Command,
    Finding,
    Note,
    Remedy,
    Severity,
    Step,
)

if TYPE_CHECKING:
    from doctor.facts.containers import Container, Containers
    from doctor.facts.networks import Networks

_STOOD_IN_THE_WAY = (
    (
        re.compile("networking|external connectivity|port is already allocated|network |endpoint|address pool"),
        ("DMN022", "NET003", "NET009", "NET021", "NET030", "NET037", "NET038", "NET059"),
    ),
    (
        re.compile(r"overlay mount|mount overlay|layer does not exist|overlay2/[0-9a-f]{64}(?:-init)?: no such file"),
        ("LAY001", "LAY002", "LAY003", "LAY004", "LAY006", "LAY008", "LAY024", "LAY032"),
    ),
    (re.compile("mounting volume|local volume|mount source|bind source"), ("VOL001", "VOL002")),
    (re.compile("systemd.*cgroup"), ("DMN024",)),
    (re.compile("initialize logging driver"), ("DMN010", "DMN040")),
    (re.compile("runc|runtime|docker-init|failed to start shim"), ("DMN021",)),
    (re.compile("too many open files"), ("DMN016",)),
)
"""Words of a start that failed, and the codes of what they complain about: the finding of such a code is the cause."""


def network_of_nobody(one: Container, containers: Containers) -> bool:
    """Whether it shares the network of a container that was removed: it holds the id, which no other will have."""
    target = one.network_mode.removeprefix("container:")
    if target == one.network_mode or not containers.complete or containers.unsettled:
        return False
    return not any(target in {other.id, other.engine_name} for other in containers.all)


def orphan(one: Container) -> Finding:
    """A container shares the network of one that was removed."""
    target = one.network_mode.removeprefix("container:")[:12]
    return down(
        one,
        f"{one.name} shares the network of a container that was removed: {target}",
        f"{one.name} was made with --network container:{target}, which is gone, and no start will find it;"
        f" its last one failed: {one.asked.error}",
        f"NetworkMode {one.network_mode}",
        Remedy(
            "make it anew, beside the container that took that one's place",
            (
                Note(
                    f"make {one.engine_name} anew with --network container:NAME of the one that is there now"
                    " (Compose: docker compose up -d --force-recreate); docker start will fail again"
                ),
            ),
            notes=("whenever that one is made anew (an update, a watchtower), this one has to be as well",),
        ),
        severity=missed(one),
    )


NETWORK_GONE = re.compile(r"network ([0-9a-f]{64}) not found")


def network_gone(one: Container, identity: str, networks: Networks | None) -> Finding:
    """A container holds the id of a network that was removed, while it was down: one of the same name is another."""
    end = next((end for end in one.endpoints if end.network_id == identity), None)
    name = end.network if end is not None else one.network_mode
    there = networks is not None and any(held.name == name for held in networks.all)
    service = one.name.rpartition("/")[2] if one.project else ""
    options: tuple[str, ...] = ("--alias", service) if service else ()
    if end is not None and end.static:
        options += ("--ip6" if ":" in end.static[0] else "--ip", end.static[0])
    steps: tuple[Step, ...] = (
        Command(("docker", "network", "disconnect", "-f", name, one.engine_name)),
        Command(("docker", "network", "connect", *options, name, one.engine_name)),
        again(one),
    )
    anew = f"docker network create {name}" + (", or docker compose up -d" if one.project else "")
    return down(
        one,
        f"{one.name} could not be started: its network {name} was removed" + (", and made anew" if there else ""),
        f"{one.name} holds {identity[:12]} as its network {name}, which is gone"
        + ("; the one of that name is another" if there else "")
        + f"; its last start failed: {one.asked.error}",
        f'Error "{one.asked.error}"',
        Remedy(
            "connect it to the network that there is now, then start it",
            steps if there else (Note(f"make the network again: {anew}"), *steps),
            notes=("docker compose up -d --force-recreate does the same for a whole project",) if one.project else (),
        ),
        severity=missed(one),
    )


def state_left(one: Container) -> Finding:
    """A container that was killed together with its shim has left its state with runc, which makes no second one."""
    runc = ("runc", "--root", "/run/docker/runtime-runc/moby")
    return down(
        one,
        f"{one.name} could not be started: runc still has one of that id",
        f"the last start of {one.name} failed: {one.asked.error}; what runc keeps of it outlived it",
        f'Error "{one.asked.error}"',
        Remedy(
            "let runc forget the one that is gone, then start it again",
            (Command((*runc, "delete", "--force", one.id)), again(one)),
        ),
        severity=missed(one),
    )


STATE_LEFT = "container with given ID already exists"

_KNOWN = (
    (
        re.compile(r"fork/exec (?P<what>/\S*ip6?tables\S*): (?P<why>no such file or directory|permission denied)"),
        "dockerd cannot run {what}: {why}",
        (
            "install iptables again (apt-get install --reinstall iptables, dnf reinstall iptables-nft), or, where {what} is"
            " there: chmod 0755 {what}; no container of a bridge network starts before"
        ),
    ),
    (
        re.compile(r"error setting rlimit type (?P<what>\d+): invalid argument"),
        "a soft limit is above its hard limit",
        (
            "correct default-ulimits in daemon.json (Soft at most Hard), then restart Docker; or make {name} anew with"
            " another --ulimit: docker inspect -f '{{{{json .HostConfig.Ulimits}}}}' {name}"
        ),
    ),
)
"""Words of a start that failed which say what to do: what they mean, and that."""


def not_started(one: Container) -> Finding:
    """A start that failed at something else: the words say at what."""
    steps: tuple[Step, ...] = (again(one),)
    meaning, severity = "", missed(one)
    for words, means, advice in _KNOWN:
        match = words.search(one.asked.error)
        if match:
            said = match.groupdict() | {"name": one.engine_name}
            meaning = means.format(**said)
            steps = (Note(advice.format(**said)), *steps)
            severity = Severity.ERROR  # it is not this container's fault: no other will start either
    return down(
        one,
        f"{one.name} could not be started" + (f": {meaning}" if meaning else ""),
        f"the last start of {one.name} failed: {one.asked.error}" + (f": {meaning}" if meaning else ""),
        f'Error "{one.asked.error}"',
        Remedy("start it again when what the error names is mended", steps),
        severity=severity,
        because=tuple(code for words, codes in _STOOD_IN_THE_WAY if words.search(one.asked.error) for code in codes),
    )
