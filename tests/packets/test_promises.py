"""Promises of networks, walked: every container is spoken for, and a class is split by whatever names one of its members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.examine import Facts
from doctor.packets.build import SITE
from doctor.packets.flow import Flow
from doctor.packets.promises import PROMISES, Promises
from doctor.packets.walk import follow
from doctor.registry import load
from tests.cases import casefile
from tests.packets.test_walk import HEALTHY, with_rules

if TYPE_CHECKING:
    from doctor.snapshot import Snapshot

USER = "[0:0] -A FORWARD -j DOCKER-USER\n"


def walked(snapshot: Snapshot) -> Promises:
    """Walk what a host promises."""
    found: Promises = Facts(load(plugins=False), snapshot).get(PROMISES)
    return found


def user(*rules: str) -> Snapshot:
    """Give the healthy host with rules in DOCKER-USER."""
    return with_rules((USER, USER + "".join(f"[0:0] -A DOCKER-USER {rule}\n" for rule in rules)))


@pytest.mark.parametrize("base", ["healthy-20", "healthy-26", "healthy-28"])
def test_a_healthy_host_keeps_its_promises(base: str) -> None:
    """Every running container has a way out, every port is reached, neighbours talk, networks are apart."""
    found = walked(casefile.base(base))
    assert not found.broken("egress", "published", "neighbours", "apart", "inside")
    assert found.unwalked == 0
    assert {one.name for walk in found.of("egress") for one in walk.members} == {"web", "api", "db"}
    assert {(walk.port.host, walk.container.name) for walk in found.of("published") if walk.port} == {
        (8080, "web"),
        (8081, "api"),
    }
    assert {walk.network.name for walk in found.of("neighbours")} == {"shop"}
    assert {walk.network.name for walk in found.of("apart")} == {"bridge", "shop"}


def test_a_rule_that_names_a_container_splits_its_class() -> None:
    """A drop of one address is found, whoever is first in the network; the others are well."""
    found = walked(user("-s 10.7.0.3/32 -j DROP"))
    cut = {one.container.name: one.code for one in found.broken("egress")}
    assert cut == {"db": "DOCKER_USER_DROP"}
    assert sorted(one.container.name for one in found.of("egress") if one.kept) == ["api", "web"]


def test_a_rule_that_names_a_port_splits_its_class() -> None:
    """A drop of one published port, by the port that the client asked for."""
    found = walked(user("-p tcp -m conntrack --ctorigdstport 8081 --ctdir ORIGINAL -j DROP"))
    assert [one.port.host for one in found.broken("published") if one.port] == [8081]


def test_no_rule_names_the_client() -> None:
    """Rules about single networks outside are nothing that a stranger meets."""
    assert not walked(user("-s 203.0.113.0/24 -j DROP", "-d 198.51.100.64/26 -j DROP")).broken("egress", "published")


def test_an_answer_that_is_cut() -> None:
    """The first packet goes, and the answer does not come: it is told which."""
    found = walked(user("-i eth0 -j DROP"))
    assert {(one.going, one.code) for one in found.broken("egress")} == {(False, "DOCKER_USER_DROP")}
    assert {one.going for one in found.broken("published")} == {True}


def test_what_could_not_be_read_breaks_nothing() -> None:
    """Rules that are not known are no promise and no fault."""
    held = HEALTHY.records["net/nft"]
    lost = replace(HEALTHY, records=HEALTHY.records | {"net/nft": replace(held, status="timeout", data=b"", why="2 s")})
    found = walked(lost)
    assert (found.all, found.unread != "") == ((), True)


@pytest.mark.parametrize(
    "rules",
    [
        (),
        ("-s 10.7.0.2/32 -j DROP",),
        ("-d 10.7.0.0/31 -j DROP", "-s 172.17.0.0/16 -o eth0 -j DROP"),
        ("-m iprange --src-range 10.7.0.3-10.7.0.9 -j REJECT",),
        ("! -s 10.7.0.3/32 -o eth0 -j DROP",),
    ],
)
def test_a_member_fares_as_its_class(rules: tuple[str, ...]) -> None:
    """Walked one by one, every member ends as the one that was walked for it."""
    snapshot = user(*rules)
    facts = Facts(load(plugins=False), snapshot)
    site, found = facts.get(SITE), facts.get(PROMISES)
    spaces = {space.name: key for key, space in site.spaces.items()}
    compared = 0
    for walk in found.of("egress"):
        for one in walk.members:
            flow = Flow(spaces[one.name], walk.flow.dst, walk.flow.dport, walk.version)
            assert follow(site, flow).works == walk.result.works, one.name
            compared += 1
    assert compared == 3


def test_too_many_kinds_are_counted() -> None:
    """What rules about everybody break is walked up to a limit, and what is beyond it is said to be unknown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("doctor.packets.promising.MOST", 0)
        found = walked(user("-s 10.7.0.3/32 -j DROP"))
    assert not found.broken("egress")
    assert found.unwalked > 0


def test_every_pair_is_judged() -> None:
    """What one neighbour alone cannot send another is found, whichever of the two comes first."""
    for rule, pair, whole in (
        ("-s 10.7.0.2/32 -d 10.7.0.3/32 -j DROP", ("api", "db"), True),  # the answers of api as well
        ("-s 10.7.0.3/32 -d 10.7.0.2/32 -p tcp -m conntrack --ctstate NEW -j DROP", ("db", "api"), False),
    ):
        found = walked(user(rule)).broken("neighbours")
        assert [(one.container.name, one.other.name, one.whole) for one in found if one.other] == [(*pair, whole)]


@pytest.mark.parametrize("base", ["healthy-26", "healthy-28"])
def test_a_host_as_it_is_needs_no_walk_of_each(base: str) -> None:
    """The kernel gives each port of a bridge a link-local address; containers are judged together all the same."""
    facts = Facts(load(plugins=False), casefile.base(base))
    found = facts.get(PROMISES)
    assert {one.kind for one in found.all if not one.settled} <= {"apart"}
    assert all(follow(facts.get(SITE), one.flow).works for one in found.all if one.settled)


def test_twins_are_told_apart_by_what_they_have_inside() -> None:
    """What is read of one namespace stands for another one where all but their addresses is the same, and only there."""
    held = [name for name in HEALTHY.records if name.startswith("netns/") and name.endswith("/routes")]
    spaces = [name.split("/")[1] for name in held if "host" not in name]
    assert len({Facts(load(plugins=False), HEALTHY).get(SITE).spaces.twin(one) for one in spaces}) < len(spaces)
    route = b'{"type":"blackhole","dst":"198.51.100.0/24","dev":"","table":"main","protocol":"boot","flags":[]},\n{'
    records = {
        f"netns/{one}/routes": replace(record, data=record.data.replace(b"{", route, 1))
        for one in spaces[-1:]
        for record in (HEALTHY.records[f"netns/{one}/routes"],)
    }
    other = Facts(load(plugins=False), replace(HEALTHY, records=HEALTHY.records | records)).get(SITE)
    assert [one for one in spaces if other.spaces.twin(one) == spaces[-1]] == [spaces[-1]]
