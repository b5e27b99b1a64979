"""Cures that are called safe stop nothing: connections that stand before a fault stand after its cure, as printed.

Three are held through all of it: a client outside to a published port, a container to a server outside, and two neighbours.
No byte is sent while a fault is there: what counts is that the next one arrives after the cure, on the same connection.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.engine.faults import FAULTS
from tests.engine.faults.table import populate
from tests.engine.test_faults import carry_out, lives, report
from tests.enginehost import HOST_IP, OUTSIDE_IP, EngineHost

if TYPE_CHECKING:
    from tests.enginehost import Held

BY_NAME = {f"{one.code}-{one.name}": one for one in FAULTS}

EVERYWHERE = ("NET021-iptables-flush", "NET034-host", "NET067-from-outside")
"""Faults whose cures are carried out on every engine: a flush that `doctor rules --missing` mends is the first."""

NEWEST = (
    "NET021-nat-only",
    "NET020-no-forward",
    "NET025-shop",
    "NET028-forward",
    "NET033-firewalld-without-zone",
    "NET052-bridged",
    "NET066-in-docker-user",
    "NET010-address-gone",
)
"""Those that are tried on the newest engine besides."""


def test_connections_outlive_safe_cures(suite: str) -> None:
    """Each fault is made and cured in turn on one host; the three connections are the same from first to last."""
    names = (*EVERYWHERE, *(NEWEST if suite == "sid" else ()))
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(EngineHost.up(suite=suite))
        populate(host)
        stack.enter_context(host.container("echo", "-p", "8099:7", command=("echod", "7")))
        stack.enter_context(host.listen("outside", 9001))
        held: dict[str, Held] = {
            "in": stack.enter_context(host.hold_connection("outside", HOST_IP, 8099)),
            "out": stack.enter_context(host.hold_connection("db", OUTSIDE_IP, 9001)),
            "between": stack.enter_context(host.hold_connection("cron", host.container_ip("echo"), 7)),
        }
        assert alive(held) == dict.fromkeys(held, True)
        before = lives(host)
        for name in names:
            fault = BY_NAME[name]
            fault.make(host)
            _, found = report(host)
            cause = next(one for one in found["findings"] if one["code"] == fault.code)
            assert (cause["remedy"]["risk"], cause["remedy"]["stops"]) == ("safe", []), name
            carry_out(host, cause["remedy"]["steps"])
            assert alive(held) == dict.fromkeys(held, True), f"after the cure of {name}"
            assert lives(host) == before, name
            code, found = report(host)
            assert code == 0, (name, [one["message"] for one in found["findings"]])


def alive(held: dict[str, Held]) -> dict[str, bool]:
    """Which connections still carry bytes there and back; what was lost is sent again by TCP, and waited for."""
    return {name: one.alive(timeout=10) for name, one in held.items()}


def test_a_cure_that_stops_is_noticed() -> None:
    """The connections would tell: ended by a restart of their container they do not come back."""
    with EngineHost.up(suite="sid") as host:
        populate(host)
        with (
            host.container("echo", "-p", "8099:7", command=("echod", "7")),
            host.hold_connection("outside", HOST_IP, 8099) as held,
        ):
            assert held.alive()
            host.docker("restart", "-t", "0", "echo")
            assert not held.alive(timeout=3)


@pytest.mark.parametrize("name", [*EVERYWHERE, *NEWEST])
def test_faults_are_there(name: str) -> None:
    """A name that is misspelt would hold nothing."""
    assert name in BY_NAME
