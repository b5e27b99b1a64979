"""Broken promises, walked again with the engine's rules as it wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doctor.examine import Facts
from doctor.packets.promises import PROMISES, Promises
from doctor.packets.restored import RESTORED, Restored, flaw
from doctor.registry import load
from tests.cases import casefile
from tests.packets.test_walk import with_rules

if TYPE_CHECKING:
    from doctor.snapshot import Snapshot

SHOP = "br-b4b4b4b4b4b4"
ANSWERS = f"[0:0] -A DOCKER-CT -o {SHOP} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
MASQUERADE = f"[0:0] -A POSTROUTING -s 10.7.0.0/24 ! -o {SHOP} -j MASQUERADE\n"
DNAT = "[0:0] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n"
RAW = f"[0:0] -A PREROUTING -d 10.7.0.2/32 ! -i {SHOP} -j DROP\n"
USER = "[0:0] -A FORWARD -j DOCKER-USER\n"


def restored(snapshot: Snapshot) -> Restored:
    """Walk again what has a flaw."""
    found: Restored = Facts(load(plugins=False), snapshot).get(RESTORED)
    return found


def promises(snapshot: Snapshot) -> Promises:
    """Walk what a host promises."""
    found: Promises = Facts(load(plugins=False), snapshot).get(PROMISES)
    return found


def told(found: Restored) -> set[tuple[str, str, str, str, str]]:
    """Give kind, network, what is wrong, what would be, and what heals it."""
    return {(one.walked.kind, one.walked.network.name, one.flaw, one.then, one.by) for one in found.all}


@pytest.mark.parametrize("base", ["healthy-20", "healthy-26", "healthy-28"])
def test_a_healthy_host_has_no_flaw(base: str) -> None:
    """Nothing is wrong with any promise, so nothing is walked again."""
    assert not [one for one in promises(casefile.base(base)).all if flaw(one)]
    assert restored(casefile.base(base)) == Restored(())


def test_a_missing_rule_that_decides_is_healed_by_putting_it_back() -> None:
    """Answers are let in again."""
    assert told(restored(with_rules((ANSWERS, "")))) == {("egress", "shop", "broken", "", "missing")}


def test_a_missing_masquerade_is_a_flaw_though_it_depends() -> None:
    """Whether the network outside knows a way back cannot be seen; that the address is bare can."""
    found = restored(with_rules((MASQUERADE, "")))
    assert told(found) == {("egress", "shop", "unmasked", "", "missing")}


def test_a_port_without_dnat_is_proxied() -> None:
    """docker-proxy answers in its place: the promise is kept, and has a flaw."""
    found = restored(with_rules((DNAT, "")))
    assert told(found) == {("published", "bridge", "proxied", "", "missing")}
    assert all(one.walked.kept for one in found.all)


def test_a_list_of_others_hides_no_flaw() -> None:
    """Who is on a list of addresses cannot be seen: the promise is made to those who are not."""
    banned = "[0:0] -A INPUT -m set --match-set banned src -j DROP\n"
    found = restored(with_rules((DNAT, ""), (USER, banned + USER)))
    assert ("published", "bridge", "proxied", "", "missing") in told(found)
    assert all(one.walked.result.works is None for one in found.all)


def test_a_stale_rule_is_healed_by_taking_it_out() -> None:
    """The right rule is there, behind one that leads to another container."""
    stale = DNAT.replace("172.17.0.2", "10.7.0.2")
    assert told(restored(with_rules((DNAT, stale + DNAT)))) == {("published", "bridge", "astray", "", "extra")}


def test_what_another_rule_stops_is_not_healed() -> None:
    """A rule is missing that decides nothing, and somebody's drop is what stops packets."""
    drop = "[0:0] -A DOCKER-USER -s 10.7.0.0/24 ! -d 10.7.0.0/24 -j DROP\n"
    found = restored(with_rules((RAW, ""), (USER, USER + drop)))
    assert {(kind, now, by) for kind, _, now, _, by in told(found)} >= {("egress", "broken", "")}
    assert ("direct", "shop", "open", "", "missing") not in told(found)


def test_direct_access_is_walked_where_its_drop_is_missing() -> None:
    """And nowhere else."""
    assert not promises(casefile.base("healthy-28")).of("direct")
    assert told(restored(with_rules((RAW, "")))) == {("direct", "shop", "open", "", "missing")}


def test_containers_of_which_the_same_rules_are_missing_are_one_class() -> None:
    """A flush makes one class of a network more, not one of each container."""
    one = RAW.replace("10.7.0.2", "10.7.0.3")
    assert len(promises(with_rules((RAW, ""))).of("egress")) == 3
    assert len(promises(with_rules((RAW, ""), (one, ""))).of("egress")) == 2
