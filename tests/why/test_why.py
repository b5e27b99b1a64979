"""What is said of a subject: the first line, what was asked, the cause, the exit code."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import jsonschema
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from doctor.bundle import read
from doctor.examples import path
from doctor.exits import UsageError
from doctor.reports.text import Style
from doctor.reports.why import as_json, as_text, schema
from tests.why.hosts import REGISTRY, down, edited, given, healthy, inspected, missing, user_rule, why

if TYPE_CHECKING:
    from doctor.model import Why
    from doctor.snapshot import Snapshot

SUBJECTS = ("web1", "api", "db", "cron", ":8080", ":8081", ":2525", ":5432", "shop", "bridge", "busybox:lab")


@cache
def _healthy(word: str) -> tuple[Why, int]:
    return why(healthy(), REGISTRY, word)


def ask(word: str, snapshot: Snapshot | None = None, code: int | None = None) -> Why:
    """Ask, and hold the exit code against what is said."""
    found, left = why(snapshot, REGISTRY, word) if snapshot else _healthy(word)
    assert {False: 1, None: 3, True: 0}[found.well] == left
    assert code is None or left == code, as_text(found)
    return found


@pytest.mark.parametrize("word", SUBJECTS)
def test_a_healthy_host(word: str) -> None:
    """Nothing is wrong with anything on it, and that is said in so many words."""
    found = ask(word, code=0)
    assert not found.diagnoses
    assert not found.stopped
    assert not found.unknown
    assert as_text(found).splitlines()[-1].startswith(f"ok: nothing wrong with {word} in ")
    assert all(held.kept for one in found.containers for held in one.promises if held.wanted)


def test_what_is_asked_of_a_container() -> None:
    """Its ports from outside and from here, its way out, its nameservers, its neighbours there and back."""
    one = ask("db").containers[0]
    asked = [(held.kind, held.trace.source, held.trace.target) for held in one.promises]
    assert asked[:4] == [
        ("port", "host", "127.0.0.1:5432/tcp"),
        ("outside", "db", "203.0.113.77:443/tcp"),
        ("nameserver", "db", "127.0.0.11:53/udp"),
        ("nameserver", "host", "198.51.100.1:53/udp"),
    ]
    assert {(held.trace.source, held.peer) for held in one.promises if held.kind == "neighbour"} == {
        ("db", "api"),
        ("db", "mail"),
        ("api", "api"),
        ("mail", "mail"),
    }
    assert one.notes == ("5432 is published on 127.0.0.1: for this host alone",)


def test_a_rule_that_no_check_names() -> None:
    """The rule that decides is the answer, with what takes it away; whoever it does not concern is well."""
    rule = "-i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP"
    broken = user_rule(healthy(), rule)
    found = ask(":8080", broken, 1)
    assert found.answer == "8080 -> web1, 172.17.0.2:80: a client would time out; from this host it would connect"
    assert [one.code for one in found.stopped] == ["DOCKER_USER_DROP"]
    text = as_text(found)
    assert "FAIL  DOCKER_USER_DROP  a rule of somebody else in DOCKER-USER stops it" in text
    assert f"iptables -t filter -D DOCKER-USER {rule}" in text
    assert " then   doctor trace outside host:8080" in text
    assert text.splitlines()[-1].startswith("1 cause, 0 warnings; ")
    ask(":8081", broken, 0)
    ask("shop", broken, 0)
    assert ask("web1", broken, 1).answer == "web1 runs; 8080 would time out from outside"


def test_a_warning_that_is_the_answer() -> None:
    """What may be meant, for a host, is the cause for whoever asks about what it stops; for others it is elsewhere."""
    broken = user_rule(healthy(), "-i docker0 -j DROP")
    found = ask("web1", broken, 1)
    assert [(one.code, one.severity) for one in found.diagnoses] == [("NET029", "error")]
    assert not found.stopped
    assert "iptables -t filter -D DOCKER-USER -i docker0 -j DROP" in as_text(found)
    ask("api", broken, 0)


def test_the_cure_is_one_for_what_was_asked() -> None:
    """A rule that stops answers and clients: the cure for answers opens no port, so the rule is told of the port as well."""
    broken = user_rule(healthy(), "-i eth0 -j DROP")
    assert [one.code for one in ask(":8080", broken, 1).stopped] == ["DOCKER_USER_DROP"]
    assert not ask("cron", broken, 1).stopped


def test_a_list_of_who_may_come_in() -> None:
    """A list in DOCKER-USER is meant: its clients are asked for, and whom it lets in is said."""
    listed = user_rule(healthy(), "-i eth0 ! -s 10.0.0.0/8 -m conntrack --ctstate NEW -j DROP")
    found = ask(":8080", listed, 0)
    assert found.answer == "8080 -> web1, 172.17.0.2:80: a client such as 10.0.0.1 would connect"
    assert found.containers[0].notes == (
        "8080: of those outside, clients of 10.0.0.0/8 are let in by a list in DOCKER-USER",
    )
    ask("web1", listed, 0)


def test_a_range_that_is_banned() -> None:
    """Nobody outside is one of a certain range: a ban of those that documents use stops neither clients nor the way out."""
    for rule in ("-s 203.0.113.0/24 -j DROP", "-d 203.0.113.0/24 -j DROP"):
        assert ask("web1", user_rule(healthy(), rule), 0).well


def test_a_cause_is_not_told_twice() -> None:
    """Where a check names what stops the packets, the walk adds nothing but who is hit."""
    off = edited(healthy(), "files/proc/sys/net/ipv4/ip_forward", ("1\n", "0\n"))
    off = given(off, "net/sysctl/ipv4", off.records["net/sysctl/ipv4"].text.replace("\t1\\n", "\t0\\n"))
    found = ask("shop", off, 1)
    assert [one.code for one in found.diagnoses] == ["NET034"]
    assert not found.stopped
    assert found.answer == (
        "network shop, 3 containers: 8081, 2525 would time out from outside; api, db, mail would reach nothing outside"
    )
    well = ask(":5432", off, 0)
    assert (well.elsewhere, well.diagnoses) == (1, ())
    assert as_text(well).splitlines()[-1].endswith("elsewhere 1 cause (doctor check)")


@pytest.mark.parametrize(
    ("state", "says", "code"),
    [
        ({}, "db does not run: it ended at 16:14:20 with exit code 0", 1),  # it publishes a port
        ({"ExitCode": 137}, "db does not run: it was killed by SIGKILL at 16:14:20 (exit code 137), not", 1),
        ({"ExitCode": 137, "OOMKilled": True}, "db does not run: it was killed for memory at 16:14:20 (exit", 1),
        ({"ExitCode": 3}, "db does not run: it ended at 16:14:20 with exit code 3", 1),
        ({"ExitCode": 143}, "db does not run: it was told to end by SIGTERM at 16", 1),
        ({"Error": "no such file"}, "db does not run: its last start failed: no such file", 1),
    ],
)
def test_a_container_that_does_not_run(state: dict[str, object], says: str, code: int) -> None:
    """Its state is the answer, and its port says so; the others are well."""
    ended = down(healthy(), "db", **state)
    found = ask("db", ended, code)
    assert found.answer.startswith(says)
    assert "docker start db" in as_text(found)
    assert ask(":5432", ended, 1).answer.startswith("5432 -> db: it does not run: ")
    assert "db does not run" in ask("shop", ended, 1).answer
    ask("api", ended, 0)


def test_what_is_wrong_beside_its_packets() -> None:
    """Where packets arrive, the first line names the cause; that of the container itself before that of the host."""
    sick = inspected(healthy(), "web1", State={"Health": {"Status": "unhealthy", "FailingStreak": 4, "Log": []}})
    found = ask("web1", sick, 1)
    assert found.answer == "web1 runs since 16:14:16; web1 fails its health check"
    assert ask(":8080", sick, 1).answer.endswith("a client would connect; web1 fails its health check")
    ask("cron", sick, 0)
    hangs = read(path("daemon-stopped"))
    found = ask("web1", hangs, 1)
    assert found.answer.endswith("; dockerd does not answer: a signal has stopped it")
    assert found.unknown
    assert [one.code for one in ask(":8080", hangs, 1).diagnoses] == ["DMN016"]


def test_a_job_that_is_done() -> None:
    """What ended by itself, publishes nothing and failed nowhere is as it should be."""
    done = down(healthy(), "cron")
    assert ask("cron", done, 0).answer == "cron does not run: it ended at 16:14:20 with exit code 0"
    assert ask("bridge", done, 0).answer == "network bridge, 2 containers (1 ended): nothing wrong found"


def test_a_paused_container() -> None:
    """Its kernel still connects, and nobody answers."""
    paused = inspected(healthy(), "web1", State={"Status": "paused", "Paused": True})
    found = ask("web1", paused, 1)
    assert found.answer == "web1 is paused: its processes are frozen"
    assert "docker unpause web1" in as_text(found)
    assert [one.code for one in found.stopped] == ["DST_FROZEN"]
    assert ask(":8080", paused, 1).answer == (
        "8080 -> web1, 172.17.0.2:80: a client would connect, and then hear nothing more; it is paused: its processes"
        " are frozen"
    )
    neighbour = ask("cron", paused, 0)
    assert "web1 is paused: the kernel opens connections for it" in " ".join(as_text(neighbour).split())


def test_nothing_is_well_that_was_not_seen() -> None:
    """Without the rules nothing is said of packets, and nothing is called well."""
    found = ask("web1", missing(missing(healthy(), "net/iptables-nft"), "net/nft"), 3)
    assert any("depends on" in one for one in found.unknown)
    text = as_text(found)
    assert "unknown: " in text
    assert text.splitlines()[-1].startswith("incomplete: nothing wrong was found in ")
    blind = ask("web1", missing(healthy(), "netns/index"), 3)
    assert blind.walks == 0


def test_without_containers_there_is_no_subject() -> None:
    """Who may read neither the API nor the disk is told so."""
    gone = missing(healthy(), "api/containers")
    gone = replace(gone, records={k: v for k, v in gone.records.items() if not k.startswith("store/containers/")})
    gone = replace(
        gone,
        records=gone.records | {"store/containers/": missing(healthy(), "api/containers").records["api/containers"]},
    )
    with pytest.raises(UsageError, match="permission denied"):
        ask("web1", gone)


def test_a_host_without_a_way_out() -> None:
    """Whether a host without a default route is meant to be one is not known; its ports are asked from its subnet."""
    routes = healthy().records["netns/host/routes"].text
    cut = given(
        healthy(), "netns/host/routes", "\n".join(line for line in routes.split("\n") if '"dst":"default"' not in line)
    )
    assert cut.records["netns/host/routes"].text != routes
    assert ask(":8080", cut, 0).answer == "8080 -> web1, 172.17.0.2:80: a client such as 198.51.100.3 would connect"
    found = ask("web1", cut, 3)
    assert any("no default route" in one for one in found.unknown)


def test_json_is_its_schema() -> None:
    """The answer validates against the schema that is made from the same structs."""
    for word in ("web1", ":8080", "shop", "busybox:lab"):
        jsonschema.validate(json.loads(as_json(ask(word))), schema())


def test_hostile_names() -> None:
    """What a host calls its things is shown, and does nothing to a terminal."""
    evil = inspected(healthy(), "db", State={"Error": "\x1b[2Jgone\u202e", "Running": False, "Status": "exited"})
    found, _ = why(evil, REGISTRY, "db")
    text = as_text(found, Style(verbose=True))
    assert all(line.isprintable() for line in text.splitlines())
    shop = evil.records["api/networks"].text.replace('"Name":"shop"', '"Name":"sh\\u001bop"')
    found, _ = why(given(evil, "api/networks", shop), REGISTRY, "bridge")
    assert all(line.isprintable() for line in as_text(found).splitlines())


@pytest.mark.parametrize("word", SUBJECTS)
@pytest.mark.parametrize("verbose", [False, True])
def test_it_fits(word: str, verbose: bool) -> None:  # noqa: FBT001
    """At 80 columns no line of ours is longer, and none holds anything but ASCII."""
    for line in as_text(ask(word), Style(verbose=verbose)).splitlines():
        assert line.isascii()
        assert len(line) <= 80


@settings(max_examples=min(60, settings.default.max_examples))
@draw(
    record=st.sampled_from(
        [
            "net/iptables-nft",
            "netns/host/links",
            "netns/host/routes",
            "api/containers",
            "api/networks",
            "proc/processes",
        ]
    ),
    cut=st.integers(0, 5000),
    length=st.integers(1, 400),
    word=st.sampled_from(SUBJECTS),
    put=st.sampled_from(["", "{", '"', "}", "-j A\n", "null", "10.7.0.0/99"]),
)
def test_always_an_answer(record: str, cut: int, length: int, word: str, put: str) -> None:
    """Whatever of the evidence is broken: an answer, or a word of what is missing."""
    text = healthy().records[record].text
    try:
        found, _ = why(given(healthy(), record, text[:cut] + put + text[cut + length :]), REGISTRY, word)
    except UsageError:
        return
    assert as_text(found)
    assert as_json(found)
