"""`doctor/engine/rules/` and `doctor rules` without an engine: places of what is missing, dialects by release, the text."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from doctor.engine.rules import DIALECTS, Bridge, Endpoint, Link, Ruleset, Site, Written, dialect
from doctor.engine.rules.compare import Difference, Missing, compare, lacking, surplus, whole
from doctor.examine import Facts
from doctor.facts.engine_rules import EngineRules
from doctor.registry import load
from doctor.rules import rules
from tests.cases import casefile

if TYPE_CHECKING:
    from doctor.engine.rules import Dialect, Family
    from doctor.engine.rules.compare import Chains
    from doctor.rules import Wanted

FACTS = Path(__file__).parent.parent / "facts" / "engine_rules"
SHOP = Site(
    bridges=(Bridge("docker0", "172.17.0.0/16"), Bridge("br-aaaaaaaaaaaa", "10.7.0.0/24")),
    endpoints=(Endpoint("docker0", "172.17.0.2"), Endpoint("br-aaaaaaaaaaaa", "10.7.0.2")),
)


def carried_out(there: Chains, text: str) -> dict[tuple[str, str], list[str]]:
    """Do what iptables-restore --noflush does: a chain that is declared is emptied, rules go where they say."""
    chains = {key: list(rules) for key, rules in there.items()}
    table = ""
    for line in text.split("\n"):
        word, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        if line[:1] == "*":
            table = line[1:]
        elif line[:1] == ":":
            chains[table, word[1:]] = []
        elif word == "-A":
            chains.setdefault((table, chain), []).append(rule)
        elif word == "-I":
            number, _, rule = rule.partition(" ")
            chains.setdefault((table, chain), []).insert(int(number) - 1, rule)
        elif word == "-D":
            chains[table, chain].remove(rule)
        elif word == "-X":
            assert not chains.pop((table, rest))
    return chains


def there(expected: Ruleset) -> dict[tuple[str, str], tuple[str, ...]]:
    """Give a firewall that holds just what is expected."""
    return {key: tuple(one.text for one in held) for key, held in expected.chains.items()}


@pytest.mark.parametrize("one", DIALECTS, ids=lambda one: one.name)
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_nothing_differs_from_itself(one: Dialect, family: Family) -> None:
    """A firewall as the engine leaves it lacks nothing, and the text of it all makes it out of nothing."""
    expected = one.write(SHOP, family)
    held = there(expected)
    links = frozenset(bridge.name for bridge in SHOP.bridges)
    assert compare(expected, held, links) == Difference((), (), ())
    empty = compare(expected, {}, links)
    for text in (lacking(empty), whole(expected)):
        made = carried_out({}, text)
        assert {key: tuple(rules) for key, rules in made.items() if rules} == {
            key: rules for key, rules in held.items() if rules
        }
        assert set(expected.own) <= set(made)


FOREIGN = st.sampled_from(["-i wg0 -j ACCEPT", "-s 192.0.2.1/32 -j DROP", "-j ufw-before-forward"])


@given(
    keep=st.lists(st.booleans(), min_size=12, max_size=12),
    foreign=st.lists(st.tuples(st.integers(0, 12), FOREIGN), max_size=4),
    tops=st.lists(st.booleans(), min_size=12, max_size=12),
    swap=st.booleans(),
)
def test_holes_are_filled(keep: list[bool], foreign: list[tuple[int, str]], tops: list[bool], *, swap: bool) -> None:
    """Whatever is gone comes back once, in order among what was not moved; foreign rules keep their order."""
    texts = [f"-s 10.0.0.{number}/32 -j ACCEPT" for number in range(12)]
    expected = Ruleset(
        "ip", (), {("filter", "FORWARD"): tuple(Written(text, top) for text, top in zip(texts, tops, strict=True))}
    )
    held = [text for text, kept in zip(texts, keep, strict=True) if kept]
    if swap and len(held) > 1:
        held[0], held[-1] = held[-1], held[0]
    for place, rule in foreign:
        held.insert(place, rule)
    before = {("filter", "FORWARD"): tuple(held)}
    made = carried_out(before, lacking(compare(expected, before, frozenset())))["filter", "FORWARD"]
    assert sorted(rule for rule in made if rule in texts) == sorted(texts)
    assert [rule for rule in made if rule in held] == held
    if not swap:
        assert [rule for rule in made if rule in texts] == texts
    again = {("filter", "FORWARD"): tuple(made)}
    assert not compare(expected, again, frozenset()).missing


def test_places() -> None:
    """Behind the one before, else before the one after, else where the engine would put it."""
    expected = Ruleset(
        "ip",
        (),
        {("filter", "FORWARD"): (Written("-j A", top=True), Written("-j B", top=True), Written("-j C", top=False))},
    )

    def made(*held: str) -> list[str]:
        before = {("filter", "FORWARD"): held}
        return carried_out(before, lacking(compare(expected, before, frozenset())))["filter", "FORWARD"]

    assert made("-j x", "-j y") == ["-j A", "-j B", "-j C", "-j x", "-j y"]
    assert made("-j x", "-j B", "-j y") == ["-j x", "-j A", "-j B", "-j C", "-j y"]
    assert made("-j x", "-j A", "-j C", "-j y") == ["-j x", "-j A", "-j B", "-j C", "-j y"]
    only = Ruleset("ip", (), {("nat", "OUTPUT"): (Written("-j C", top=False),)})
    before = {("nat", "OUTPUT"): ("-j x",)}
    assert carried_out(before, lacking(compare(only, before, frozenset())))["nat", "OUTPUT"] == ["-j x", "-j C"]


def test_the_chain_of_the_user_is_left_alone() -> None:
    """RETURN goes into an empty DOCKER-USER only, and what stands there is never too much."""
    expected = dialect("26.1.5")[0].write(SHOP, "ip")
    users = ("filter", "DOCKER-USER")
    links = frozenset(bridge.name for bridge in SHOP.bridges)
    assert lacking(compare(expected, there(expected) | {users: ()}, links)) == (
        "*filter\n-A DOCKER-USER -j RETURN\nCOMMIT\n"
    )
    own = compare(expected, there(expected) | {users: ("-i eth0 -j DROP",)}, links)
    assert own == Difference((), (), ())


def test_what_is_too_much() -> None:
    """What no engine of this release writes goes; rules of swarm mode and of others stay."""
    expected = dialect("28.5.2")[0].write(SHOP, "ip")
    held = {key: list(found) for key, found in there(expected).items()}
    held["filter", "DOCKER-INTERNAL"] = ["-i br-000000000000 -j DROP"]
    held["filter", "FORWARD"] += ["-j DOCKER-INTERNAL", "-j DOCKER-INGRESS", "-i wg0 -j ACCEPT"]
    held["raw", "PREROUTING"] += ["-d 172.17.0.9/32 ! -i docker0 -j DROP"]
    held["nat", "DOCKER"] += held["nat", "DOCKER"][:1]
    before = {key: tuple(found) for key, found in held.items()}
    text = surplus(compare(expected, before, frozenset(bridge.name for bridge in SHOP.bridges)))
    made = carried_out(before, text)
    assert made["filter", "FORWARD"][2:] == ["-j DOCKER-INGRESS", "-i wg0 -j ACCEPT"]
    assert ("filter", "DOCKER-INTERNAL") not in made
    assert made["raw", "PREROUTING"] == list(there(expected)["raw", "PREROUTING"])
    assert sorted(made["nat", "DOCKER"]) == sorted(there(expected)["nat", "DOCKER"])


@pytest.mark.parametrize(
    ("release", "name", "live"),
    [
        ("20.10.24", "20.10", True),
        ("23.0.6", "26", False),
        ("26.1.5", "26", True),
        ("27.5.1", "26", False),
        ("28.0.0", "28.0.0", False),
        ("28.0.1", "28.0.1", False),
        ("28.1.1", "28.0.2", False),
        ("28.3.3", "28.2", True),
        ("28.5.2+dfsg4", "28.2", True),
        ("29.7.2", "29", False),
        ("31.0", "29", False),
        ("library-import", "20.10", False),
    ],
)
def test_dialects_by_release(release: str, name: str, *, live: bool) -> None:
    """Each release has its dialect; only what was compared with a live engine says so."""
    found, compared = dialect(release)
    assert (found.name, compared) == (name, live)


def test_links_open_a_way_and_back() -> None:
    """A legacy link is two rules a port, of IPv4 only."""
    site = Site(
        bridges=(Bridge("docker0", "172.17.0.0/16", icc=False),),
        links=(Link("docker0", "172.17.0.3", "172.17.0.2", ((5432, "tcp"),)),),
    )
    for one in DIALECTS:
        held = [rule.text for rule in one.write(site, "ip").chains["filter", "DOCKER"]]
        assert "-s 172.17.0.3/32 -d 172.17.0.2/32 -i docker0 -o docker0 -p tcp -m tcp --dport 5432 -j ACCEPT" in held
        assert "-s 172.17.0.2/32 -d 172.17.0.3/32 -i docker0 -o docker0 -p tcp -m tcp --sport 5432 -j ACCEPT" in held
        assert not any("--sport" in rule.text for rule in one.write(site, "ip6").chains["filter", "DOCKER"])


@pytest.mark.parametrize("path", sorted(FACTS.glob("engine-29-*.toml")), ids=lambda path: path.stem)
def test_what_a_live_29_saved_is_what_is_written(path: Path) -> None:
    """The recorded saves of a live engine 29, whole and in order."""
    made = json.loads(path.with_suffix(".json").read_text())["families"]
    records = {one["name"]: one.get("text", "") for one in tomllib.loads(path.read_text())["record"]}
    for family in made:
        program = "iptables" if family["family"] == "ip" else "ip6tables"
        saved: dict[str, list[str]] = {}
        table = ""
        for line in records[f"net/{program}-nft"].split("\n"):
            if line[:1] == "*":
                table = line[1:]
            elif line[:3] == "-A ":
                _, chain, rule = line.split(" ", 2)
                saved.setdefault(f"{table} {chain}", []).append(rule)
        written = {key: [one["text"] for one in held] for key, held in family["expected"]["chains"].items() if held}
        assert written == saved


REGISTRY = load(plugins=False)


def test_mirrored_networking_of_wsl_is_seen() -> None:
    """The link loopback0 is there in that mode only, and the engine then writes a rule more."""
    snapshot = casefile.base("healthy-28")
    links = snapshot.get("netns/host/links")
    more = replace(links, data=links.data.replace(b"[\n", b'[\n{"ifindex":77,"ifname":"loopback0"},\n', 1))
    rules: EngineRules = Facts(REGISTRY, replace(snapshot, records=snapshot.records | {links.name: more})).get(
        EngineRules
    )
    its = rules.of("ip")
    assert its is not None
    assert its.difference.missing == (Missing("nat", "DOCKER", 3, "-d 127.0.0.0/8 -i loopback0 -j RETURN"),)


@pytest.mark.parametrize(
    ("name", "wanted", "family", "code", "starts", "said"),
    [
        ("healthy-28", "missing", "ip", 0, "# Docker 28.5.2", ""),
        ("healthy-28", "extra", "ip6", 0, "# Docker 28.5.2", ""),
        ("healthy-28", "expected", "ip", 0, "# Docker 28.5.2", ""),
        ("healthy-20", "expected", "ip6", 0, "", "writes no rules of IPv6"),
        ("flushed-28", "missing", "ip", 1, "# Docker 28.5.2", ""),
        ("daemon-stopped", "missing", "ip", 3, "", "not known: API"),
        ("nftables", "expected", "ip", 0, "# Docker 28.5.2", "never compared"),
        ("nftables", "expected", "ip6", 0, "# Docker 28.5.2", "never compared"),
        ("nftables", "missing", "ip", 1, "# Docker 28.5.2", "never compared"),
        ("nftables", "extra", "ip", 3, "", "nftables"),
        ("engine-29-networks", "missing", "ip", 0, "# Docker 29.7.2", "never compared"),
    ],
)
def test_the_command(name: str, wanted: Wanted, family: Family, code: int, starts: str, said: str) -> None:
    """Exit 0 when nothing lacks, 1 when something does, 3 when nobody knows; what is printed loads as it is."""
    text, heard, left = rules(casefile.snapshot(FACTS / f"{name}.toml"), REGISTRY, wanted, family)
    assert left == code
    assert text.startswith(starts)
    assert bool(text) == bool(starts)
    assert said in heard
    assert text.count("*") == text.count("COMMIT")
