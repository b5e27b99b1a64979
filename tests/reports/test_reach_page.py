"""The page of `doctor reach`: a box for each network, whatever the number of containers; hostile names are text."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.packets.matrix import Wanted, matrix
from doctor.reports.reach_page import render
from tests.packets.hosts import Box, Host, bridge, known

if TYPE_CHECKING:
    from doctor.model import Reach

HUNDRED = Host(
    tuple(Box((at % 8,), (80,), ((8000 + at, 80),) if at % 9 == 0 else ()) for at in range(100)),
    networks=8,
    icc_off=frozenset({2}),
    internal=frozenset({5}),
    rules=(
        f"filter -A DOCKER-USER -i {bridge(1)} -o {bridge(3)} -j ACCEPT",
        f"filter -A DOCKER-USER -i {bridge(4)} -o {bridge(4)} -j DROP",
    ),
    raw=False,
)


def judged(host: Host, source: str = "") -> Reach:
    """Judge every pair of a host."""
    return matrix(known(host), "host", "0.1.0", Wanted(source, ""))


def page(found: Reach) -> str:
    """Render it."""
    out = io.StringIO()
    render(found, out)
    return out.getvalue()


def drawn(text: str) -> str:
    """Give the drawing alone."""
    return text.partition("<svg")[2].partition("</svg>")[0]


def test_a_hundred_containers() -> None:
    """As many boxes as networks (and the outside), containers counted and folded, the broken network red, one line across."""
    text = page(judged(HUNDRED))
    picture = drawn(text)
    assert picture.count('class="box"') + picture.count('class="bad"') == 8 + 1
    assert picture.count('class="bad"') == 1
    assert "12 containers: BROKEN" in picture
    assert "13 containers: reach each other" in picture
    assert len(re.findall(r'class="way yes" d="M560 ', picture)) == 1
    assert not re.search(r">c\d+[ <]", picture)
    assert text.count("<details>") == 8
    assert len(text) < 120_000
    assert text.isascii()


def test_some_containers_are_named() -> None:
    """A few stand in their box by name, and their rows are open."""
    found = judged(Host((Box((0,)), Box((0,)), Box((1,)))))
    text = page(found)
    assert ">c0 c1</text>" in drawn(text)
    assert text.count("<details open>") == 2
    assert "every promise of these networks is kept" in text


def test_what_is_broken_is_crossed_out() -> None:
    """Forwarding is off: every way in and out is red, and the letters say why."""
    text = page(judged(Host((Box((0,), (80,), ((8080, 80),)), Box((0,))), networks=1, forwarding=False)))
    assert drawn(text).count('class="cross"') == 2
    assert "in: 0 of 1 port" in drawn(text)
    assert "BROKEN: the host does not forward packets" in text


def test_a_part_has_no_drawing() -> None:
    """Of one row there is nothing to draw."""
    text = page(judged(Host((Box((0,)), Box((0,)))), "c0"))
    assert "<svg" not in text
    assert "from each container of" in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x>', "\u202e\x1b[31m"])
def test_names_are_text(name: str) -> None:
    """A container or network may be called anything."""
    found = judged(Host((Box((0,)), Box((0,)))))
    ends = tuple(replace(one, networks=(name,)) for one in found.ends)
    text = page(replace(found, host=name, ends=ends))
    assert name not in text
    assert "<script" not in text
    assert "<img" not in text
    assert "\x1b" not in text


def test_the_policy_lets_nothing_in() -> None:
    """One style by its hash, and no script at all."""
    text = page(judged(Host((Box((0,)),), networks=1)))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "script-src" not in policy[1]
