"""What a schema cannot say of a scenario: names that lead nowhere, codes that are none, fates that no probe measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.labs.ground import words_of
from doctor.labs.population import publish
from doctor.labs.scenario import CONTAINER, WORDS, ContainerTable, Probe, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.labs.faults import Fault

DEFAULT = ("docker0", "bridge")
LONGEST = 4
"""Lines of 76 columns that a story may take on the screen of `doctor lab run`."""


def amiss(one: Scenario) -> Iterator[tuple[str, str]]:
    """Give the key of each thing that is wrong, and what it is, in the order of the file."""
    yield from _texts(one)
    yield from _containers(one)
    for key, steps in (("prepare", one.prepare), ("fault", one.faults), ("person", one.person)):
        yield from _steps(one, key, steps)
    if not one.faults:
        yield "fault", "is missing: nothing would be broken"
    if not one.probe:
        yield "probe", "is missing: nothing would prove that something is broken"
    for number, probe in enumerate(one.probe):
        yield from _probe(one, probe, f"probe[{number}]")
    yield from _expect(one)


def codes(one: Scenario) -> Iterator[tuple[str, str]]:
    """Do as `amiss` for codes that no check has; it needs the checks, and importing those takes a moment."""
    from doctor.options import registry

    known = registry().checks
    held = (
        ("codes", one.expect.codes),
        ("also", one.expect.also),
        ("silent", one.expect.silent),
        ("beside", one.expect.beside),
    )
    for key, named in held:
        for code in named:
            if code not in known:
                yield f"expect.{key}", f"{code} is no code of a check"


def _texts(one: Scenario) -> Iterator[tuple[str, str]]:
    width = 76
    for key, text, most in (("title", one.title, width), ("teaches", one.teaches, 47)):
        if not 0 < len(text) <= most:
            yield key, f"is {len(text)} characters long, at most {most}"
    if not 0 < len(one.sentence(one.story)) <= LONGEST * width:
        yield "story", f"is {len(one.sentence(one.story))} characters long, at most {LONGEST * width}"
    if not 1 <= one.minutes <= 60:  # noqa: PLR2004 - an hour is no lab
        yield "minutes", f"{one.minutes} is none of 1 to 60"
    if not 1 <= len(one.hints) <= 5:  # noqa: PLR2004 - who needs more wants `solve`
        yield "hints", f"has {len(one.hints)}, 1 to 5 are wanted"
    if not one.dialects:
        yield "dialects", "is empty"


def _containers(one: Scenario) -> Iterator[tuple[str, str]]:
    for name, table in one.container.items():
        key = f"container.{name}"
        if not CONTAINER.fullmatch(name):
            yield key, "is no name for a container: two characters at least, of A-Z a-z 0-9 _ . -"
        yield from _container(one, key, table)
    for name in one.network:
        if name in DEFAULT:
            yield f"network.{name}", "is there without being made; what it is like is said in [daemon]"


def _container(one: Scenario, key: str, table: ContainerTable) -> Iterator[tuple[str, str]]:
    if table.network and table.networks:
        yield f"{key}.networks", "and network: one of both"
    for network in (table.network, *table.networks):
        shared = network.removeprefix("container:")
        if network.startswith("container:"):
            if shared not in one.container:
                yield f"{key}.network", f"there is no container {shared}"
        elif network and network not in {*one.network, *DEFAULT, "host", "none"}:
            yield f"{key}.network", f"there is no network {network}: {', '.join((*one.network, 'docker0'))}"
    for text in table.publish:
        try:
            publish(text)
        except ValueError:
            yield f"{key}.publish", f'"{text}" is not what -p takes: [ADDRESS:][PORT:]PORT[/udp]'
    for link in table.links:
        if link.partition(":")[0] not in one.container:
            yield f"{key}.links", f"there is no container {link.partition(':')[0]}"


def _steps(one: Scenario, key: str, steps: tuple[Fault, ...]) -> Iterator[tuple[str, str]]:
    for number, step in enumerate(steps):
        for text in step.texts():
            yield from _words(one, text, f"{key}[{number}]")
        inside = getattr(step, "inside", "") or getattr(step, "of", "")
        if inside and inside not in one.container:
            yield f"{key}[{number}]", f"there is no container {inside}"


def _words(one: Scenario, text: str, key: str) -> Iterator[tuple[str, str]]:
    """Look at what stands in braces."""
    for word, of, network in words_of(text):
        if word == "dockerd":
            continue
        if word == "bridge":
            if of not in {*one.network, *DEFAULT}:
                yield key, f"{{{word}:{of}}}: there is no network {of}"
        elif of not in one.container:
            yield key, f"{{{word}:{of}}}: there is no container {of}"
        elif network and network not in {*one.network, *DEFAULT}:
            yield key, f"{{{word}:{of}@{network}}}: there is no network {network}"


def _probe(one: Scenario, probe: Probe, key: str) -> Iterator[tuple[str, str]]:
    kinds = [kind for kind in WORDS if getattr(probe, "target" if kind == "to" else kind)]
    if len(kinds) != 1:
        yield key, f"has {' and '.join(kinds) or 'none'} of {', '.join(WORDS)}: one is wanted"
        return
    words = WORDS[kinds[0]]
    for name in ("healthy", "broken"):
        value = getattr(probe, name)
        if value not in words:
            yield f"{key}.{name}", f'"{value}" is none of {", ".join(words)}'
    if probe.healthy == probe.broken and len(one.probe) == 1:
        yield f"{key}.broken", "is what is measured on the healthy host: then the fault changes nothing"
    if probe.says and kinds[0] != "run":
        yield f"{key}.says", "is for run alone"
    for text in (probe.run, probe.file, probe.process, probe.target):
        yield from _words(one, text, key)
    places = {"host", "outside", *one.container}
    if probe.source not in places:
        yield f"{key}.from", f'"{probe.source}" is none of {", ".join(sorted(places))}'
    if probe.target:
        yield from _target(one, probe.target, f"{key}.to")


def _target(one: Scenario, target: str, key: str) -> Iterator[tuple[str, str]]:
    name, _, port = target.removesuffix("/udp").removesuffix("/tcp").rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        yield key, f'"{target}" is no target: CONTAINER:PORT, host:PORT, outside:PORT or ADDRESS:PORT, /udp behind'
        return
    known = {"host", "outside", *one.container}
    if name.partition("@")[0] not in known and "." not in name and not name.startswith(("[", "{")):
        yield key, f"there is no {name}: {', '.join(sorted(known))}"


def _expect(one: Scenario) -> Iterator[tuple[str, str]]:
    wanted = one.expect
    if not wanted.codes:
        yield "expect.codes", "is empty"
        return
    if wanted.root and wanted.root not in wanted.codes:
        yield "expect.root", f"{wanted.root} is none of expect.codes"
    if not wanted.root and wanted.level != "info":
        yield "expect.root", "is missing: only a note is no cause"
    if wanted.cure and wanted.cure not in wanted.codes:
        yield "expect.cure", f"{wanted.cure} is none of expect.codes"
    twice = {*wanted.silent} & {*wanted.codes, *wanted.also, *wanted.beside}
    if twice:
        yield "expect.silent", f"{', '.join(sorted(twice))} is expected as well"
