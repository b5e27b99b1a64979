"""Scenario files: those that ship are whole, and what is wrong with one is told with file, line and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doctor.labs import catalogue
from doctor.labs.faults import KINDS
from doctor.labs.ground import words_of
from doctor.labs.judging import codes
from doctor.labs.loading import ScenarioError, load, parse
from doctor.labs.population import containers, network_words, networks, publish, run_words
from doctor.labs.toml_lines import Lines

if TYPE_CHECKING:
    from doctor.labs.scenario import Scenario

FILES = catalogue.files()
SCENARIOS = [load(path) for path in FILES]

WHOLE = """\
schema = 1
title = "x"
area = "network"
minutes = 3
teaches = "x"
story = "x"
try = "x"
hints = ["x"]

[container]
web = { listen = ["80/tcp"] }

[[fault]]
kind = "sysctl"
key = "net.ipv4.ip_forward"
value = "0"

[[probe]]
from = "web"
to = "outside:9000"
healthy = "open"
broken = "filtered"

[expect]
codes = ["NET034"]
root = "NET034"
"""


def test_what_is_whole_is_read() -> None:
    """The text that the other tests spoil is a scenario."""
    one = parse(WHOLE, "scenarios/mine.toml")
    assert (one.name, one.title, one.probe[0].source, one.dialects) == ("mine", "x", "web", ("20.10", "26", "28"))


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('"open"', '"close"', 21, 'probe[0].healthy: "close" is none of open, refused, filtered, unreachable'),
        ("schema = 1", "schema = 2", 1, 'schema: "2" is none of 1'),
        ('area = "network"', 'area = "net"', 3, 'area: "net" is none of '),
        ("minutes = 3", 'minutes = "3"', 4, "minutes: expected int, got str"),
        ("minutes = 3", "minutes = 99", 4, "minutes: 99 is none of 1 to 60"),
        ('title = "x"\n', "", 1, "title: is missing"),
        ('title = "x"', 'title = "x"\ncolour = "red"', 3, "colour: no such key; there are schema, title,"),
        ('"80/tcp"] }', '"80/tcp"], port = 80 }', 11, "container.web.port: no such key; there are image,"),
        ("web = {", "w = {", 11, "container.w: is no name for a container"),
        ('kind = "sysctl"', 'kind = "sysctls"', 14, 'fault[0].kind: "sysctls" is none of rule.insert,'),
        ('value = "0"', "value = 0", 16, "fault[0].value: expected str, got int"),
        ('value = "0"\n', "", 13, "fault[0].value: is missing"),
        ('from = "web"', 'from = "wep"', 19, 'probe[0].from: "wep" is none of host, outside, web'),
        ('"outside:9000"', '"outside"', 20, 'probe[0].to: "outside" is no target'),
        ('"outside:9000"', '"db:80"', 20, "probe[0].to: there is no db"),
        ('to = "outside:9000"', 'to = "outside:9000"\nrun = "true"', 18, "probe[0]: has to and run of"),
        ('broken = "filtered"', 'broken = "open"', 22, "probe[0].broken: is what is measured on the healthy host"),
        ('codes = ["NET034"]', "codes = []", 25, "expect.codes: is empty"),
        ('root = "NET034"', 'root = "NET035"', 26, "expect.root: NET035 is none of expect.codes"),
        ('hints = ["x"]', "hints = []", 8, "hints: has 0, 1 to 5 are wanted"),
        ('"net.ipv4.ip_forward"', '"{pid:db}"', 13, "fault[0]: {pid:db}: there is no container db"),
        ("[[probe]]", "[[probe]", 18, "expected"),
        ("[container]", "container = 3\n[x]", 10, "container: is no table"),
        ("[[fault]]", "[fault]", 13, "fault: is no list of tables: write [[fault]]"),
        ('"80/tcp"] }', '"80/tcp"], publish = ["x:80"] }', 11, 'container.web.publish: "x:80" is not what -p takes'),
        ('"80/tcp"] }', '"80/tcp"], network = "shop" }', 11, "container.web.network: there is no network shop"),
    ],
)
def test_what_is_wrong_is_told_where(old: str, new: str, line: int, said: str) -> None:
    """File and line, then the key, then what is wrong and what instead."""
    assert old in WHOLE
    with pytest.raises(ScenarioError) as caught:
        parse(WHOLE.replace(old, new, 1), "scenarios/mine.toml")
    told = str(caught.value)
    place, _, rest = told.partition(": ")
    number = int(place.rpartition(":")[2])
    assert (place.rpartition(":")[0], rest[: len(said)]) == ("scenarios/mine.toml", said), told
    assert abs(number - line) <= 1 if "is missing" in said else number == line, told


def test_a_file_that_is_not_there_or_no_text(tmp_path: object) -> None:
    """What cannot be read is told as any error is."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    with pytest.raises(ScenarioError, match=r"nothing.toml: cannot read: no such file"):
        load(folder / "nothing.toml")
    (folder / "bytes.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(ScenarioError, match=r"bytes.toml:1: is no UTF-8"):
        load(folder / "bytes.toml")


def test_lines_of_keys() -> None:
    """Strings of several lines and quoted keys do not mislead."""
    where = Lines('a = """\nb = 1\n"""\nc = 2\n[files]\n"/etc/x" = "y"\n[[p]]\n[[p]]\nq.r = 1\n')
    assert [where.of(key) for key in ("a", "b", "c", "files./etc/x", "p[0]", "p[1].q.r")] == [1, 1, 4, 6, 7, 9]


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_codes_are_codes(one: Scenario) -> None:
    """A scenario expects what a check can find."""
    assert list(codes(one)) == []


def test_what_ships() -> None:
    """There are thirty at least, and among them one for each of the ten codes that labs were promised for."""
    assert len(SCENARIOS) >= 30
    wanted = {"DMN001", "DMN003", "DMN016", "NET009", "NET010", "NET012", "NET021", "NET034", "LAY002", "NSP002"}
    assert wanted <= {one.expect.root for one in SCENARIOS}
    assert len({one.title for one in SCENARIOS}) == len(SCENARIOS)


def test_every_kind_of_fault_says_what_it_is() -> None:
    """The documents are made of the docstrings; and each kind of fault is of one class."""
    assert all(kind.__doc__ for kind in KINDS.values())
    assert len(set(KINDS.values())) == len(KINDS)


@pytest.mark.parametrize("text", ["80", "8080:80", "127.0.0.1:8080:80/udp", "127.0.0.1::80", "[2001:db8::1]:8080:80"])
def test_publish_is_read_and_said_alike(text: str) -> None:
    """What is read of -p is what docker is told."""
    one = parse(WHOLE.replace('"80/tcp"] }', f'"80/tcp"], publish = ["{text}"] }}'), "scenarios/mine.toml")
    words = run_words(containers(one)[0])
    assert publish(words[words.index("--publish") + 1]) == publish(text)


def test_population_in_the_words_of_docker() -> None:
    """Networks and containers become what somebody would type."""
    table = (
        '[network.shop]\nsubnet = "10.7.0.0/24"\nicc = false\ninternal = true\n[container]\ndb = { network = "shop" }\n'
    )
    one = parse(WHOLE.replace("[container]\n", table), "scenarios/mine.toml")
    icc = "com.docker.network.bridge.enable_icc=false"
    assert network_words(networks(one)[0]) == [
        *("network", "create", "--subnet", "10.7.0.0/24", "--internal", "-o", icc, "shop"),
    ]
    assert [run_words(spec) for spec in containers(one)] == [
        ["--name", "db", "--network", "shop", "busybox:lab", "idle"],
        ["--name", "web", "busybox:lab", "serve", "80"],
    ]


def test_words_in_braces() -> None:
    """Only the words that are known are taken: braces of shells and of JSON stay."""
    assert words_of('{"a": {b}} ${x} {pid:web} {veth:web@shop}') == [("pid", "web", ""), ("veth", "web", "shop")]
