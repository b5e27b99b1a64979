"""Who reaches whom: all flows together where both ends are plain, else one walk for each pair of classes.

A walk of a hundred containers to a hundred others would be ten thousand walks, and most of them are the same walk with
other addresses. Senders that are expected are judged at once (`columns`); what those leave is walked once for two classes
whose members nothing tells apart (`alike`). What is of no class (NAT to somebody else) is walked for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field, structs

from doctor.model import Citation
from doctor.packets.alike import Class, Classes
from doctor.packets.columns import Columns, Wanted
from doctor.packets.flow import OUTSIDE, Flow
from doctor.packets.flows import bits
from doctor.packets.legs import Legs, Owners
from doctor.packets.packet import Version, number
from doctor.packets.site import HOST
from doctor.packets.walk import Result, Walk, follow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.packets.evaluate import Hit
    from doctor.packets.flow import End as Ended
    from doctor.packets.goal import Goal
    from doctor.packets.site import Site

State = Literal["yes", "refused", "no", "depends"]
"""`refused`: it arrives where it should, and nobody listens there."""


class Judgement(Struct, frozen=True):
    """Whether it is reached. `code` and `cited` say what denies it, `question` what it depends on.

    `text` is the deciding step in words, `alike` that it was walked for another pair of the same classes.
    """

    state: State
    code: str = ""
    cited: Citation | None = None
    text: str = ""
    question: str = ""
    alike: bool = False

    @property
    def arrives(self) -> bool:
        """Whether packets get there and back."""
        return self.state in {"yes", "refused"}

    @property
    def unwalked(self) -> bool:
        """Whether it was not judged, for want of time."""
        return self is _UNWALKED or self.question == _UNWALKED.question


_UNWALKED = Judgement("depends", question="what was not walked: there are too many kinds of containers")


def judgement(result: Result, source: str, goal: Goal, site: Site, unread: str = "") -> Judgement:
    """Say whether a walk reached its goal; `unread` says why the host's listeners are not known, empty when they are."""
    walk = result.walk
    if result.works is None:
        text = result.question.text if result.question else ""
        if " way back to " in text:  # it is asked of each address
            text = "whether the network outside has a way back to addresses that are not masqueraded"
        return Judgement("depends", cited=result.question.cited if result.question else None, question=text)
    ends = [one.landed[0] for one in (walk, walk.proxied) if one is not None and one.landed is not None]
    there = goal.where in ends
    if walk.works and there:
        return Judgement("yes")
    last = walk.proxied or walk
    if there and last.end.outcome == "refused" and walk.sees in {"refused", "reset"} and _back(last):
        return Judgement("refused", last.end.code)
    end = walk.decider
    doubt = _doubt(end, source, site, unread)
    if doubt:
        return Judgement("depends", question=doubt)
    step = end.step
    if walk.works:
        landed = ends[-1] if ends else ""
        return Judgement("no", "ELSEWHERE", None, f"it arrives elsewhere: {landed}")
    return Judgement("no", end.code, step.cited if step else None, step.text if step else "")


def _doubt(end: Ended, source: str, site: Site, unread: str) -> str:
    """Say what a walk that ends badly depends on, where that is more than the model knows; empty where it is sure."""
    if end.code == "UNKNOWN":
        return end.step.text if end.step is not None else "what was not read"
    if unread and end.outcome == "refused" and end.space == HOST:
        return f"what listens on the host: {unread}"
    if end.code.startswith("FORWARDING_OFF") and end.space in site.spaces and end.space != HOST:
        return f"whether {site.spaces[end.space].name} forwards packets: settings inside of containers are not read"
    if site.host.missing and (end.space != source or source == HOST):  # a rule may have sent it elsewhere before
        return f"what was not read: {site.host.missing}"
    return ""


def _back(walk: Walk) -> bool:
    return walk.reply is None or walk.reply.outcome in {"delivered", "leaves"}


class _Column(Struct):
    """A goal, judged for sets of senders; `alone` are those not yet judged."""

    alone: int
    held: dict[int, tuple[int, Judgement]] = field(default_factory=dict)

    def put(self, mask: int, judged: Judgement) -> None:
        """Note a judgement; by which object it is, for to compare them costs more than to have two."""
        known = self.held.get(id(judged))
        self.held[id(judged)] = (mask if known is None else known[0] | mask), judged
        self.alone &= ~mask

    def of(self, bit: int) -> Judgement | None:
        """Give the judgement for one sender."""
        if self.alone & bit:
            return None
        return next((judged for mask, judged in self.held.values() if mask & bit), None)


class Pairs:
    """Judges pairs of one site, each class once; `walks` counts what was walked."""

    def __init__(
        self,
        site: Site,
        unread: str = "",
        clients: dict[Version, tuple[int, ...]] | None = None,
        most: int | None = None,
    ) -> None:
        """Take a site; nothing is walked yet. `unread` says why the host's listeners are not known.

        `clients` are addresses outside, by version: who is outside is judged by the first of them that gets through.
        `most` bounds the walks: what it would take another one for is not judged, and counted in `unwalked`.
        """
        self.site = site
        self.unread = unread
        self.clients = clients or {}
        self.most = most
        self.walks = self.unwalked = 0
        self._owners = Owners(site)
        self._made: Classes | None = None
        self._sources: dict[str, Class] = {}
        self._goals: dict[Goal, Class] = {}
        self._known: dict[tuple[int, int], tuple[Judgement, Class, Class, bool]] = {}
        self._own: dict[tuple[str, Goal], Judgement] = {}
        self._senders: dict[str, int] = {}
        self._expected: tuple[Goal, ...] = ()
        self._ports: tuple[Goal, ...] = ()
        self._every = 0
        self._alone: frozenset[Goal] = frozenset()
        self._both: frozenset[Goal] = frozenset()
        self._grouped: dict[int, int] | None = None
        self._columns: Columns | None = None
        self._filled: dict[Goal, _Column] = {}
        self._dropped: dict[int, Judgement] = {}
        self._ended: dict[str, Judgement] = {}

    def expect(self, senders: Iterable[str], goals: Iterable[Goal], ports: Iterable[Goal] = ()) -> None:
        """Say which containers (ids of namespaces) will be asked about which goals: they are judged at once, when asked.

        About `ports` who is outside will be asked as well (alone, where they are not among the goals): the last sender then.
        """
        self._expected = tuple(dict.fromkeys(goals))
        self._ports = tuple(dict.fromkeys(ports))
        self._alone = frozenset(self._ports)
        self._both = self._alone.intersection(self._expected)
        self._senders = {key: at for at, key in enumerate(dict.fromkeys(senders))}
        self._every = (1 << len(self._senders)) - 1
        if self._ports:
            self._senders.setdefault(OUTSIDE, len(self._senders))
        self._columns = self._grouped = None
        self._filled = {}

    def column(self, goal: Goal) -> tuple[tuple[int, Judgement], ...]:
        """Judge a goal for all expected senders: sets of them (bit by bit, in the order given), each with its judgement.

        The sender that the goal belongs to is in none.
        """
        filled = self._fill(goal)
        if filled.alone:
            self._classed(goal, filled)
        return tuple(filled.held.values())

    def _classed(self, goal: Goal, filled: _Column) -> None:
        """Judge who is left: those of one class by one walk, where no rule about one of them decides."""
        keys = list(self._senders)
        if self._grouped is None:
            self._grouped = {}
            for at, key in enumerate(keys):
                mine = self._source(key).key
                self._grouped[mine] = self._grouped.get(mine, 0) | 1 << at
        for mine, group in self._grouped.items():
            rest = group & filled.alone
            if rest:
                bit = rest & -rest
                first = keys[bit.bit_length() - 1]
                found = self._by_class(first, goal)
                filled.put(bit, found)
                rest ^= bit
                shared = self._known[mine, self._class(goal).key][3]
                if rest and shared and (found.cited is None or found.cited not in self._source(first).cited):
                    filled.put(rest, structs.replace(found, alike=True))
                    continue
                for at in bits(rest):
                    filled.put(1 << at, self._by_class(keys[at], goal))

    def judge(self, source: str, goal: Goal) -> Judgement:
        """Say whether a namespace (`host`, an inode, `outside`) reaches a goal."""
        if source == goal.where:
            return self._itself(source, goal)
        at = self._senders.get(source)
        found = self._fill(goal).of(1 << at) if at is not None else None
        if (
            found is not None
            and found.state == "no"
            and source == OUTSIDE
            and len(self.clients.get(goal.version, ())) > 1
        ):
            found = None  # another client may get through
        return found or self._by_class(source, goal)

    def known(self, goal: Goal) -> tuple[tuple[tuple[int, Judgement], ...], int]:
        """Give what is known of a goal without a walk of its own, as `column` does, and those of whom nothing is."""
        filled = self._fill(goal)
        return tuple(filled.held.values()), filled.alone

    @property
    def classes(self) -> Classes:
        """What the rules tell apart: not read where all are judged together."""
        if self._made is None:
            self._made = Classes(self.site, self._owners)
        return self._made

    def _fill(self, goal: Goal) -> _Column:
        """Give what is known of a goal for all senders; all goals are judged when the first one is asked for."""
        if self._columns is None:
            legs = Legs(self.site, self._owners)
            first = {version: held[0] for version, held in self.clients.items() if held}
            outer = self._every >> self._senders.get(OUTSIDE, len(self._senders)) & 1 == 1
            goals = Wanted(self._expected, self._ports, outer=outer)
            self._columns = Columns(self.site, legs, tuple(self._senders), goals, first)
            self.walks += self._columns.walks
        filled = self._filled.get(goal)
        if filled is not None:
            return filled
        own = self._senders.get(goal.where)
        asking = self._every
        if self._alone and goal in self._alone:
            asking = 1 << self._senders[OUTSIDE] | (self._every if goal in self._both else 0)
        others = asking & ~(0 if own is None else 1 << own)
        filled = self._filled[goal] = _Column(others)
        judged = self._columns.judged.get(goal)
        if judged is not None:
            for mask, hit in judged.dropped:
                if mask & others:
                    filled.put(mask & others, self._denied(hit, goal))
            for mask, code in judged.ended:
                if mask & others:
                    filled.put(
                        mask & others, self._ended.setdefault(code, Judgement("refused" if code else "yes", code))
                    )
        return filled

    def _denied(self, hit: Hit, goal: Goal) -> Judgement:
        """Judge those whom a rule drops."""
        found = self._dropped.get(id(hit.cited))
        if found is None and self._columns is not None:
            code, text = self._columns.told(hit, goal)
            found = self._dropped[id(hit.cited)] = Judgement("no", code, hit.cited, text)
        return found or Judgement("no", cited=hit.cited)

    def _source(self, key: str) -> Class:
        mine = self._sources.get(key)
        if mine is None:
            mine = self._sources[key] = self.classes.source(key)
        return mine

    def _class(self, goal: Goal) -> Class:
        its = self._goals.get(goal)
        if its is None:
            its = self._goals[goal] = self.classes.goal(goal)
        return its

    def _by_class(self, source: str, goal: Goal) -> Judgement:
        mine, its = self._source(source), self._class(goal)
        known = self._known.get((mine.key, its.key))
        if known is None:
            found, shared = self.walk(source, goal)
            self._known[mine.key, its.key] = (found, mine, its, shared)
            return found
        found, theirs, those, shared = known
        if (theirs, those) == (mine, its):
            return found
        return _cited(found, (theirs, mine), (those, its)) if shared else self._itself(source, goal)

    def _itself(self, source: str, goal: Goal) -> Judgement:
        held = self._own.get((source, goal))
        if held is None:
            held = self._own[source, goal] = self.walk(source, goal)[0]
        return held

    def walk(self, source: str, goal: Goal) -> tuple[Judgement, bool]:
        """Walk one pair; also whether the walk is that of every pair of the same classes."""
        if self.most is not None and self.walks >= self.most:
            self.unwalked += 1
            return _UNWALKED, False
        first, *others = (self.clients.get(goal.version) if source == OUTSIDE else None) or (None,)
        found = self._walked(source, goal, first)
        for src in others if found[0].state == "no" else ():
            other = self._walked(source, goal, src)
            if other[0].arrives:
                return other
        return found

    def _walked(self, source: str, goal: Goal, src: int | None) -> tuple[Judgement, bool]:
        self.walks += 1
        dst, dport, version, protocol = goal.flow
        result = follow(self.site, Flow(source, dst, dport, version, protocol, src))
        judged = judgement(result, source, goal, self.site, self.unread)
        return judged, self._exchangeable(result.walk, goal)

    def _exchangeable(self, walk: Walk, goal: Goal) -> bool:
        """Whether NAT led to nobody but the goal and the host: somebody else may be the source of another pair."""
        known = {goal.dst, goal.behind[0] if goal.behind else goal.dst}
        inner = walk.proxied.steps if walk.proxied else ()
        for step in (*walk.steps, *walk.reply_steps, *inner):
            way, _, end = step.effect.partition(" ")
            if way in {"to", "from"} and not self._known_end(end, known, goal.version):
                return False
        return True

    def _known_end(self, text: str, known: set[int], version: Version) -> bool:
        address = text[1:].partition("]")[0] if text.startswith("[") else text
        if version == 4:  # noqa: PLR2004 - IPv4
            address = address.partition(":")[0]
        try:
            held = number(address)
        except ValueError:
            return False
        return held in known or self.site.host.holds(held, version)


def _cited(found: Judgement, *classes: tuple[Class, Class]) -> Judgement:
    """Cite the rule that stands for these two where another one stood for the pair that was walked."""
    for theirs, mine in classes:
        if found.cited is not None and found.cited in theirs.cited:
            return structs.replace(found, cited=mine.cited[theirs.cited.index(found.cited)], alike=True)
    return structs.replace(found, alike=True)
