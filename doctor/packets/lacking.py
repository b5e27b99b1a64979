"""Which of the engine's own rules are missing for an address or port: those that lack the same ones are alike.

A promise that is broken because rules are gone is walked again with them put back (`restored`); so containers may only
stand for each other where the same kinds of rules are gone. A flush of two hundred rules makes one kind, not as many.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from doctor.packets.packet import number

if TYPE_CHECKING:
    from doctor.facts.engine_rules import EngineRules

_WRITTEN = re.compile(
    r"-[sd] (?P<prefix>[0-9a-f:.]+(?:/\d+)?)|--to-destination \[?(?P<end>\d+\.[0-9.]+|[0-9a-f:]+(?=\]))|--dport (?P<port>\d+)"
)
"""Addresses and ports of a rule, as the savers print it."""

_ONE = {"", "32", "128"}
"""Lengths of prefixes that are one address."""


class Lacking:
    """Kinds of missing rules (a rule without its addresses and ports) by the addresses and ports that they name."""

    def __init__(self, rules: EngineRules | None) -> None:
        """Read what is missing."""
        self._by_address: dict[int, set[str]] = {}
        self._by_port: dict[int, set[str]] = {}
        for its in rules.families if rules is not None else ():
            for missing in its.difference.missing:
                shape = f"{missing.chain} {_WRITTEN.sub('*', missing.text)}"
                for match in _WRITTEN.finditer(missing.text):
                    self._note(match, shape)

    def _note(self, match: re.Match[str], shape: str) -> None:
        if match["port"]:
            self._by_port.setdefault(int(match["port"]), set()).add(shape)
            return
        address, _, length = (match["prefix"] or match["end"]).partition("/")
        if length in _ONE:
            with contextlib.suppress(ValueError):
                self._by_address.setdefault(number(address), set()).add(shape)

    def of(self, address: int, *ports: int) -> frozenset[str]:
        """Give the kinds of rules that an address and some ports lack."""
        if not self._by_address and not self._by_port:
            return frozenset()
        found = set(self._by_address.get(address, ()))
        for port in ports:
            found |= self._by_port.get(port, set())
        return frozenset(found)
