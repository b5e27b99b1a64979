"""The matrix over hosts of the cases: who reaches whom, what denies it, what breaks a promise, what cannot be known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.packets.matrix import matrix
from doctor.reach import reach
from doctor.registry import load
from doctor.reports.reach import as_json, as_text
from doctor.snapshot import Record
from tests.cases import casefile
from tests.packets.hosts import Box, Host, known
from tests.packets.test_walk import with_rules

if TYPE_CHECKING:
    from doctor.model import Reach
    from doctor.snapshot import Snapshot

REGISTRY = load(plugins=False)
USER = ":DOCKER-USER - [0:0]\n"
LOOPBACK = '{"type":"local","dst":"127.0.0.0/8","dev":"lo","table":"local","flags":[]}\n'


def whole(snapshot: Snapshot) -> Snapshot:
    """Add what every host has and no check asks for: the loopback network, and bridges that call iptables."""
    routes = snapshot.records["netns/host/routes"]
    bridge = Record("net/sysctl/bridge", "tree", "/proc/sys/net/bridge", data=b"bridge-nf-call-iptables\tf\t0.000\t1\n")
    more = {routes.name: replace(routes, data=routes.data + LOOPBACK.encode()), bridge.name: bridge}
    return replace(snapshot, records=snapshot.records | more)


HEALTHY = whole(casefile.base("healthy-28"))


def judged(snapshot: Snapshot = HEALTHY, source: str = "", target: str = "") -> tuple[Reach, int]:
    """Judge a host."""
    return reach(snapshot, REGISTRY, source, target)


def told(found: Reach) -> dict[tuple[str, str, int], str]:
    """Give the kind of each answer."""
    kinds = {one.letter: one.kind for one in found.reasons}
    return {(one.source, one.target, one.port): kinds.get(one.answer, one.answer) for one in found.flows}


def with_user(rule: str) -> Snapshot:
    """Give the healthy host with a rule of the user."""
    return whole(with_rules((USER, f"{USER}[0:0] -A DOCKER-USER {rule}\n")))


@pytest.mark.parametrize("base", ["healthy-20", "healthy-26", "healthy-28"])
def test_a_healthy_host(base: str) -> None:
    """Within a network yes, to another one no, by design; ports and ways out as promised; in every generation."""
    found, code = judged(whole(casefile.base(base)))
    assert code == 0
    kinds = told(found)
    assert kinds["api", "db", 80] == kinds["db", "api", 80] == "yes"
    assert {kind for (source, target, _), kind in kinds.items() if "web" in {source, target} - {"outside"}} >= {
        "design"
    }
    assert kinds["web", "api", 80] == kinds["api", "web", 80] == "design"
    assert {kinds[name, "outside", 443] for name in ("web", "api", "db", "host")} == {"yes"}
    assert {(one.port, one.outside, one.host) for one in found.ports} == {(8080, "yes", "yes"), (8081, "yes", "yes")}
    assert all(set(one.containers) == {"yes"} for one in found.ports)
    assert "every promise of these networks is kept" in as_text(found)


def test_rules_are_named_with_an_example() -> None:
    """The legend has the rules that deny, and a trace that shows it."""
    found, _ = judged()
    (reason,) = found.reasons
    assert (reason.letter, reason.kind, reason.code) == ("A", "design", "RAW_DIRECT_ACCESS")
    assert set(reason.places) == {"raw PREROUTING 1", "raw PREROUTING 2", "raw PREROUTING 3"}
    text = as_text(found)
    assert " A   another network, by design: raw PREROUTING 1-3" in text
    assert "(doctor trace web api:80)" in text


def test_a_broken_promise_is_told_as_one() -> None:
    """A rule of the user that keeps a published port from outside: exit 1, the rule, and what else still works."""
    found, code = judged(with_user("-i eth0 -p tcp -m tcp --dport 80 -j DROP"))
    assert code == 1
    assert found.broken == 2
    (reason,) = [one for one in found.reasons if one.kind == "broken"]
    assert reason.places == ("filter DOCKER-USER 1",)
    assert {one.outside for one in found.ports} == {reason.letter}
    assert {one.host for one in found.ports} == {"yes"}
    text = as_text(found)
    assert f" {reason.letter}   BROKEN: a rule of DOCKER-USER stops it: filter DOCKER-USER 1" in text
    assert "2 promised ways are broken" in text


def test_one_pair_alone() -> None:
    """A rule between two containers of a network breaks one direction, and shows in one cell."""
    found, code = judged(with_user("-s 10.7.0.2/32 -d 10.7.0.3/32 -m conntrack --ctstate NEW -j DROP"))
    kinds = told(found)
    assert (code, kinds["api", "db", 80], kinds["db", "api", 80]) == (1, "broken", "yes")


def test_one_port_of_several() -> None:
    """A rule for one port: the cell says `part`, and the ports stand below."""
    record = next(name for name in HEALTHY.records if name.endswith("/listeners") and "4026532533" in name)
    held = HEALTHY.records[record]
    line = next(line for line in held.text.splitlines() if ":80 " in line)
    more = replace(held, data=(held.text + line.replace(":80 ", ":5432 ") + "\n").encode())
    host = with_user("-d 10.7.0.3/32 -p tcp -m tcp --dport 5432 -j DROP")
    found, code = judged(replace(host, records=host.records | {record: more}))
    kinds = told(found)
    assert (code, kinds["api", "db", 80], kinds["api", "db", 5432]) == (1, "yes", "broken")
    text = as_text(found)
    assert "part" in text
    assert "api -> db  80 yes, 5432 " in text


def test_what_depends_is_no_guess() -> None:
    """A rate decides: `?`, its rule, exit 3."""
    found, code = judged(with_user("-i eth0 -m limit --limit 1/sec -j DROP"))
    assert code == 3
    assert {one.outside for one in found.ports} == {"?"}
    assert "--limit 1/sec" in as_text(found)


def test_rules_that_were_not_read() -> None:
    """Half of a firewall decides nothing that it could change; what nothing of it can save is still told."""
    held = HEALTHY.records["net/nft"]
    cut = replace(HEALTHY, records=HEALTHY.records | {"net/nft": replace(held, status="timeout", data=b"", why="2 s")})
    found, code = judged(cut)
    assert code == 3
    kinds = {one.letter: one.kind for one in found.reasons}
    assert {kinds[one.outside] for one in found.ports} == {"depends"}
    assert "not read: " in as_text(found)


def test_without_networks_no_promise_is_judged() -> None:
    """Where the API does not tell of networks, what is denied is told, and nothing is called broken."""
    held = HEALTHY.records["api/networks"]
    cut = replace(
        HEALTHY, records=HEALTHY.records | {"api/networks": replace(held, status="failed", data=b"", why="x")}
    )
    found, code = judged(cut)
    assert (code, found.broken) == (3, 0)
    assert "what Docker promises is not judged" in as_text(found)


def test_a_namespace_that_was_not_read() -> None:
    """Every cell of its row and column is a question; the others are judged."""
    gone = {name: held for name, held in HEALTHY.records.items() if not name.startswith("netns/4026532522/")}
    found, code = judged(replace(HEALTHY, records=gone))
    kinds = told(found)
    assert code == 3
    assert {kind for (source, target, _), kind in kinds.items() if "api" in {source, target}} == {"depends"}
    assert kinds["web", "db", 80] == "design"


def test_rows_and_columns() -> None:
    """FROM is one row and its ways, `--to` one column."""
    assert {one.source for one in judged(source="web")[0].flows} == {"web"}
    assert {one.target for one in judged(target="db")[0].flows} == {"db"}
    found, _ = judged(source="outside")
    assert {one.source for one in found.flows} == {"outside"}
    assert len(found.ports) == 2


def test_hostile_names_are_escaped() -> None:
    """A name is data: no escape sequence, no bidi sign, and the command is quoted."""
    evil = "we\\u001b[31mb\\u202e;rm"
    records = {
        name: replace(held, data=held.data.replace(b'"/web"', f'"/{evil}"'.encode()))
        for name, held in HEALTHY.records.items()
    }
    found, _ = judged(replace(HEALTHY, records=records))
    text = as_text(found)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "we\\x1b[31mb\\u202e;rm" in text
    assert json.loads(as_json(found))["schema"] == "1"


def test_a_hundred_containers_are_a_row_for_each_network() -> None:
    """Above a dozen, rows are networks, and only what differs is spelt out; every line fits."""
    boxes = tuple(Box((at % 8,), (80,), ((20000 + at, 80),) if at % 2 else ()) for at in range(100))
    rules = (
        "filter -A DOCKER-USER -s 10.0.0.3/32 -m conntrack --ctstate NEW -j DROP",
        "filter -A DOCKER-USER -p tcp -m conntrack --ctorigdstport 20011 -j DROP",
    )
    found = matrix(known(Host(boxes, 8, frozenset({3}), frozenset({4}), rules)), "big", "V")
    text = as_text(found)
    assert len(found.flows) == 100 * 99 + 100 + 100 + 1
    assert " net1  (13)   A    yes" in text
    assert "but c8 -> net0 (13)  B" in text
    assert "c8 -> outside  B" in text
    assert "outside -> c11, port 20011  B" in text
    assert "1 container -> port 20001 of c1 and 48 more  E" in text
    assert len(text.splitlines()) < 40
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_dozen_containers_fit() -> None:
    """Long names and many networks: numbers stand for the names above the columns, `+` for yes."""
    boxes = tuple(Box((at % 6,), (80,), ((20000 + at, 80),)) for at in range(12))
    found = matrix(known(Host(boxes, 6)), "big", "V")
    ends = tuple(replace(one, name=f"a-name-longer-than-needed-{one.name}") for one in found.ends)
    flows = tuple(
        replace(
            one,
            source=one.source if one.source == "host" else f"a-name-longer-than-needed-{one.source}",
            target=one.target if one.target == "outside" else f"a-name-longer-than-needed-{one.target}",
        )
        for one in found.flows
    )
    text = as_text(replace(found, ends=ends, flows=flows))
    table = text.split("\n\n")[1]
    assert " +   yes" in text
    assert " 1  2 |3  4 |5  6 |7  8 |9  10|11 12 | outside" in table.splitlines()[0]
    assert all(len(line) <= 80 for line in text.splitlines())
