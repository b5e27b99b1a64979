"""Faults of firewall rules: of one, of a table, of a policy."""

from __future__ import annotations

import shlex
from typing import Literal

from doctor.labs.faults.base import Fault, Place, Undo
from doctor.labs.ground import GroundError, sh

Table = Literal["filter", "nat", "mangle", "raw"]
Program = Literal["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"]


class RuleInsert(Fault, frozen=True, kw_only=True):
    """`iptables -I`: `rule` becomes number `at` of a chain."""

    chain: str
    rule: str
    table: Table = "filter"
    at: int = 1
    program: Program = "iptables"

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        head = f"{self.program} -w -t {self.table}"
        return at.do(f"{head} -I {self.chain} {self.at} {self.rule}", f"{head} -D {self.chain} {self.rule}")


class RuleAppend(Fault, frozen=True, kw_only=True):
    """`iptables -A`."""

    chain: str
    rule: str
    table: Table = "filter"
    program: Program = "iptables"

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        head = f"{self.program} -w -t {self.table}"
        return at.do(f"{head} -A {self.chain} {self.rule}", f"{head} -D {self.chain} {self.rule}")


class RuleDelete(Fault, frozen=True, kw_only=True):
    """`iptables -D` for every rule whose text, as `iptables -S` prints it, matches a regular expression of grep -E."""

    match: str
    table: Table = "filter"
    program: Program = "iptables"

    def make(self, at: Place) -> Undo:
        """See `Fault.make`. Raises GroundError when no rule matches."""
        head = f"{self.program} -w -t {self.table}"
        listed = at.sh(f"{head} -S").splitlines()
        pattern = at.names.fill(self.match)
        found = at.sh(f"{head} -S | grep -E -- {shlex.quote(pattern)} || true").splitlines()
        gone = [one for one in found if one.startswith("-A ")]
        if not gone:
            raise GroundError(f"no rule of {self.table} matches {pattern}")
        at.sh("\n".join(f"{head} -D {one.removeprefix('-A ')}" for one in gone))
        back = []
        for one in gone:
            chain = one.split(" ")[1]
            number = [line for line in listed if line.startswith(f"-A {chain} ")].index(one) + 1
            rest = one.removeprefix(f"-A {chain} ")
            back.append(f"{head} -I {chain} {number} {rest}")
        return [lambda: sh(at.ground, "\n".join(back))]


class RulesFlush(Fault, frozen=True, kw_only=True):
    """`iptables -F` and `-X` of tables, or `nft flush ruleset` where no table is named; counters are lost."""

    tables: tuple[Table, ...] = ()
    policy: Literal["", "ACCEPT", "DROP"] = ""
    """The policy that FORWARD gets."""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        saved = at.sh("iptables-save") if self.tables else at.sh("nft list ruleset")
        if self.tables:
            at.sh("\n".join(f"iptables -w -t {table} -F; iptables -w -t {table} -X" for table in self.tables))
        else:
            at.sh("nft flush ruleset")
        if self.policy:
            at.sh(f"iptables -w -P FORWARD {self.policy}")
        program = ("iptables-restore",) if self.tables else ("nft", "-f", "-")
        return [lambda: at.ground.run(program, stdin=saved)]


class RulesPolicy(Fault, frozen=True, kw_only=True):
    """`iptables -P` of a chain of filter."""

    policy: Literal["ACCEPT", "DROP"]
    chain: Literal["FORWARD", "INPUT", "OUTPUT"] = "FORWARD"
    program: Program = "iptables"

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        before = at.sh(f"{self.program} -w -S {self.chain} | head -1").split()[-1]
        head = f"{self.program} -w -P {self.chain}"
        return at.do(f"{head} {self.policy}", f"{head} {before}")


class NftTable(Fault, frozen=True, kw_only=True):
    """`nft -f`: a table of one's own, named by `table` (`inet filter`), with chains and rules."""

    table: str
    text: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        text = f"table {self.table} {{\n{at.names.fill(self.text)}\n}}\n"
        done = at.ground.run(("nft", "-f", "-"), stdin=text)
        if done.code:
            raise GroundError(f"nft: {done.err.strip()}")
        return [at.later(f"nft delete table {self.table}")]
