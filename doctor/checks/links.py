"""Links of the old kind (--link on the default bridge): does the alias lead to its target, and do packets get there."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.containers import Container, Containers
from doctor.facts.name_files import NameFiles, Names
from doctor.facts.networks import Network, Networks
from doctor.facts.rules import Firewall, Rule
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check


def _address(container: Container) -> str:
    return next((end.address for end in container.endpoints if end.network == "bridge"), "")


def _linked(containers: Containers) -> Iterator[tuple[Container, str, str, Container | None]]:
    """Give each link of a running container: the container, the target's name, the alias, and the target if it is here."""
    by_name = {one.engine_name: one for one in containers.all}
    for container in containers.running:
        if _address(container):
            for target, alias in container.asked.links:
                yield container, target, alias, by_name.get(target)


@check("NET040", Severity.ERROR)
def link_leads_nowhere(
    containers: Containers, files: NameFiles, networks: Networks, firewall: Firewall | None
) -> Iterator[Yield]:
    """A link leads to an old address, or the rules that let it through are missing.

    ## What it is
    --link writes the target's address into the container's /etc/hosts. With icc off,
    dockerd also puts two rules for each exposed port into the chain DOCKER, which are then
    the only way between the two.
    ## What you see
    The alias resolves, and connecting times out or meets another container.
    ## By hand
    docker exec NAME cat /etc/hosts
    docker inspect NAME -f '{{json .HostConfig.Links}}'
    iptables -S DOCKER
    ## Cure
    Old address: write the line anew, in place (tee, not sed -i). Rules: put both back.
    Nothing stops. For good: a network of the user, which needs no links.
    ## Looks like
    NET041 (the alias is missing, or its target is), NET021 (all of Docker's rules are gone)
    ## Limits
    Links are known from the API only. On networks of the user they are names in Docker's
    DNS, and not judged here.
    ## References
    moby libnetwork/drivers/bridge/link.go, daemon/links.go
    """
    if containers.source != "API":
        yield Unknown("links", "API: only the API tells links")
        return
    bridge = next((one for one in networks.all if one.name == "bridge"), None)
    seen = False
    for container, target, alias, other in _linked(containers):
        seen = True
        names = files.containers.get(container.id)
        if other is None or not other.running or not _address(other):
            continue  # NET041
        if names is not None and names.hosts is not None:
            wrong = _stale(names, alias, _address(other))
            if wrong:
                yield _old_address(container, other, alias, names, wrong)
                continue
        if bridge is None or bridge.option("enable_icc").lower() not in {"false", "0"}:
            continue
        if firewall is None:
            yield Unknown(f"{container.name}:{alias}", "firewall: its rules could not be read")
            continue
        chains = firewall.chains("ip", "filter", "DOCKER")
        if not chains:
            continue  # NET021
        rules = [rule for chain in chains for rule in chain.rules]
        missing = [words for words in _wanted(container, other, bridge) if not _stands(words, rules)]
        if missing:
            yield _unruled(container, other, target, alias, missing, bridge, chains[0].cited)
    if not seen:
        yield NotApplicable("no running container has a link of the old kind")


def _stale(names: Names, alias: str, address: str) -> int:
    """Give the line of hosts in which an alias has another address only; 0 where it has the right one, or none."""
    lines = [(line, held) for line, held, called in names.entries() if alias in called]
    return 0 if not lines or any(held == address for _, held in lines) else lines[0][0]


def _old_address(container: Container, other: Container, alias: str, names: Names, line: int) -> Finding:
    text = names.hosts or ""
    lines = text.split("\n")
    old, _, rest = lines[line - 1].replace("\t", " ").partition(" ")
    lines[line - 1] = f"{_address(other)}\t{rest}"
    step: Step = Command(("tee", names.hosts_path), stdin="\n".join(lines))
    if "«" in text:  # something was taken out of the text: it cannot be written back
        step = Note(f"in {names.hosts_path}, line {line}, write {_address(other)} for {old}, in place")
    return Finding(
        subject=f"{container.name}:{alias}",
        title=f"link {alias} of {container.name} leads to {old}; {other.name} is at {_address(other)}",
        message=f"/etc/hosts of {container.name} calls {alias} {old}; {other.name}, its target, has {_address(other)}",
        evidence=(names.cite(line), other.cited),
        remedy=Remedy("write its address, in place", (step,)),
        hits=(Effect(f"{container.name} does not reach {other.name} as {alias}"),),
        works=(Effect(f"by its address, {_address(other)}"),),
        excluded=(Excluded("NET041", f"the alias is in hosts, and {other.name} runs"),),
    )


def _wanted(container: Container, other: Container, network: Network) -> list[tuple[str, ...]]:
    """Give the rules of a link as dockerd writes them: there and back, for each port that the target exposes."""
    found: list[tuple[str, ...]] = []
    for port, protocol in other.exposed:
        there = ("-s", f"{_address(container)}/32", "-d", f"{_address(other)}/32")
        back = ("-s", f"{_address(other)}/32", "-d", f"{_address(container)}/32")
        by = ("-i", network.bridge, "-o", network.bridge, "-p", protocol, "-m", protocol)
        found.append((*there, *by, "--dport", str(port), "-j", "ACCEPT"))
        found.append((*back, *by, "--sport", str(port), "-j", "ACCEPT"))
    return found


def _stands(words: tuple[str, ...], rules: list[Rule]) -> bool:
    wanted = set(zip(words[::2], words[1::2], strict=True))
    for rule in rules:
        held = rule.text.split(" ")
        if wanted <= set(zip(held, held[1:], strict=False)):  # noqa: RUF007 - pairs that overlap, too
            return True
    return False


def _unruled(
    container: Container,
    other: Container,
    target: str,
    alias: str,
    missing: list[tuple[str, ...]],
    network: Network,
    chain: Citation,
) -> Finding:
    port = next(word for name, word in zip(missing[0], missing[0][1:], strict=False) if name in {"--dport", "--sport"})
    return Finding(
        subject=f"{container.name}:{alias}",
        title=f"icc is off, and no rule lets {container.name} reach {other.name}, its link {alias}",
        message=f"network {network.name} has icc off, and {len(missing)} of the rules for link {alias} ({target}) of"
        f" {container.name} are missing from DOCKER, for port {port}",
        evidence=(
            Citation(chain.record, chain.line, f"no rule from {_address(container)} to {_address(other)}", chain.place),
            network.cited,
            container.cited,
        ),
        remedy=Remedy(
            "put them back",
            tuple(Command(("iptables", "-A", "DOCKER", *words)) for words in missing),
            lasts="until-boot",
            undo=tuple(Command(("iptables", "-D", "DOCKER", *words)) for words in missing),
        ),
        hits=(Effect(f"{container.name} does not reach {other.name} as {alias}: connecting times out"),),
        excluded=(Excluded("NET041", f"the alias is in hosts, and {other.name} runs"),),
    )


@check("NET041", Severity.ERROR)
def link_broken(containers: Containers, files: NameFiles) -> Iterator[Yield]:
    """A link has lost its target, or its alias.

    ## What it is
    --link writes the alias and the target's address into the container's /etc/hosts, when
    the container starts, and needs its target to run then.
    ## What you see
    "Cannot link to a non running container" at the next start; or the alias is unknown.
    ## By hand
    docker inspect NAME -f '{{json .HostConfig.Links}}'
    docker exec NAME cat /etc/hosts
    ## Cure
    Start the target; or write the alias into hosts, in place. For good: a network of the
    user, where containers find each other by name and in any order.
    ## Looks like
    NET040 (the alias has an old address), NET045 (its own name is missing)
    ## Limits
    A target that is down is a warning: it may be meant. Known from the API only.
    ## References
    moby daemon/links.go, daemon/container_operations_unix.go
    """
    if containers.source != "API":
        yield Unknown("links", "API: only the API tells links")
        return
    seen = False
    for container, target, alias, other in _linked(containers):
        seen = True
        names = files.containers.get(container.id)
        if other is None:
            if containers.complete and not containers.unsettled:
                yield _target_gone(container, target, alias)
        elif not other.running:
            yield _target_down(container, other, alias)
        elif names is None or names.hosts is None:
            if names is not None and names.resolv.missing:
                yield Unknown(container.name, "store: the files of the container are root only")
        elif not any(alias in called for _, _, called in names.entries()):
            yield _alias_gone(container, other, alias, names)
    if not seen:
        yield NotApplicable("no running container has a link of the old kind")


def _target_gone(container: Container, target: str, alias: str) -> Finding:
    return Finding(
        subject=f"{container.name}:{alias}",
        title=f"link {alias} of {container.name}: there is no container {target}",
        message=f"{container.name} was made with --link {target}:{alias}, and there is no container {target} any more",
        evidence=(container.cite(f"/{target}:{alias}", f"HostConfig.Links of {container.engine_name}"),),
        remedy=Remedy(
            "make the target or the container anew",
            (Note(f"make {target} anew, or {container.engine_name} on a network of the user, without --link"),),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"{container.name} would not start again"),),
    )


def _target_down(container: Container, other: Container, alias: str) -> Finding:
    return Finding(
        subject=f"{container.name}:{alias}",
        title=f"link {alias} of {container.name}: {other.name} does not run",
        message=f"{container.name} was made with --link {other.engine_name}:{alias}, and {other.name} is {other.status}",
        evidence=(
            other.cited,
            container.cite(f"/{other.engine_name}:{alias}", f"HostConfig.Links of {container.engine_name}"),
        ),
        remedy=Remedy("start it: dockerd writes its address anew", (Command(("docker", "start", other.engine_name)),)),
        severity=Severity.WARNING,
        hits=(Effect(f"{container.name} does not reach {alias}, and would not start again"),),
    )


def _alias_gone(container: Container, other: Container, alias: str, names: Names) -> Finding:
    line = f"{_address(other)}\t{alias} {other.id[:12]} {other.engine_name}\n"
    return Finding(
        subject=f"{container.name}:{alias}",
        title=f"{container.name} does not know its link {alias}",
        message=f"/etc/hosts of {container.name} has no line for {alias}, which is {other.name} at {_address(other)}",
        evidence=(names.cite(0), container.cited),
        remedy=Remedy("write the line, in place", (Command(("tee", "-a", names.hosts_path), stdin=line),)),
        hits=(Effect(f"{container.name} does not resolve {alias}"),),
        works=(Effect(f"by its address, {_address(other)}"),),
        excluded=(Excluded("NET040", "it is not an old address: there is none"),),
    )
