"""What one rule or policy that is not Docker's stops: which promises, whose, in which direction, at which port.

What the checks of such rules share. Each cut is told by one of them: by whose rule it is, and where it stands.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from doctor.checks._ways import Ways
from doctor.facts.engine_rules import SWITCHED_OFF, EngineRules, FamilyRules
from doctor.model import Citation, Command, Effect, NotApplicable, Note, Remedy, Step, Unknown, Yield
from doctor.packets.promises import NATIVE, Promises, Walked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.facts.networks import Networks
    from doctor.facts.stale_rules import StaleRules
    from doctor.packets.site import Site

_NFT = "nft "
_BY_RULE = {
    "DOCKER_USER_DROP",
    "FORWARD_RULE",
    "FORWARD_POLICY",
    "OTHER_BASE_CHAIN",
    "UNPUBLISHED_PORT",
    "ICC_DISABLED",
} | {
    *("RAW_DIRECT_ACCESS", "RAW_REMOTE_LOOPBACK", "ISOLATION", "INTERNAL_NET", "BRIDGE_FAMILY_DROP", "NETDEV_DROP"),
}
"""Codes of ends that a rule of the host, or a policy, decides; those that name a chain of Docker's are of rules in it."""


_ANSWERS = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
_NATIVE_ANSWERS = ("ct", "state", "{", "established,", "related", "}")


class Owner(NamedTuple):
    """A program whose chains are known by their names. `code` is the check that tells of them; empty: as of anybody's."""

    name: str
    chains: re.Pattern[str]
    code: str = ""


_OWNERS = (
    Owner("firewalld", re.compile(r"^(?:firewalld|FORWARD_(?:direct|IN|OUT|POLICIES)|FWD[IO]_|filter_FWD)"), "NET033"),
    Owner("firewalld", re.compile(r"^filter_FORWARD"), "NET033"),
    Owner("ufw", re.compile(r"^ufw6?-"), "NET033"),
    Owner("CSF", re.compile(r"^(?:LOCALINPUT|LOCALOUTPUT|DENYIN|DENYOUT|LOGDROPIN|LOGDROPOUT)$"), "NET066"),
    Owner("Tailscale", re.compile(r"^ts-"), "NET066"),
    Owner("ZeroTier", re.compile(r"^zt-"), "NET066"),
    Owner("Synology", re.compile(r"^(?:FORWARD_FIREWALL|INPUT_FIREWALL|DEFAULT_FORWARD|SYNO)"), "NET066"),
    Owner("QNAP", re.compile(r"^QUFIREWALL"), "NET066"),
    Owner("UGREEN", re.compile(r"^UG_"), "NET066"),
    Owner("fail2ban", re.compile(r"^f2b-")),
    Owner("Kubernetes", re.compile(r"^(?:KUBE-|CNI-|cali-|FLANNEL)")),
)


class Cut(Struct, frozen=True):
    """What one rule or policy that is not Docker's stops: the promises, and all that were walked of their kinds."""

    cited: Citation
    walks: tuple[Walked, ...]
    promises: Promises
    ways: Ways

    @property
    def native(self) -> bool:
        """Whether it stands in a table of nftables that is not iptables'."""
        return self.cited.place.startswith(_NFT)

    @property
    def words(self) -> list[str]:
        """The words of its place: table, chain and number; before them the family, where it is native."""
        return self.cited.place.removeprefix(_NFT).split(" ")

    @property
    def policy(self) -> bool:
        """Whether it is the policy of a chain."""
        return not self.words[-1].isdecimal()

    @property
    def chain(self) -> str:
        """The chain that it stands in."""
        return self.words[-1] if self.policy else self.words[-2]

    @property
    def whole(self) -> bool:
        """Whether nobody can have meant it: every way out is shut, or neighbours are kept apart."""
        ways = self.promises.of("egress")
        ports = self.promises.of("local")
        return any(one.kind == "neighbours" for one in self.walks) or any(
            bool(held) and all(one in self.walks for one in held) for held in (ways, ports)
        )

    @property
    def local(self) -> bool:
        """Whether all that it stops is what this host sends itself."""
        return all(one.kind == "local" for one in self.walks)

    @property
    def bridges(self) -> list[str]:
        """The bridges of the networks whose packets it stops."""
        return list(dict.fromkeys(one.network.bridge for one in self.walks))

    @property
    def scope(self) -> str:
        """The network that it is about, empty where it is about several."""
        names = list(dict.fromkeys(one.network.name for one in self.walks))
        return names[0] if len(names) == 1 else ""

    @property
    def owner(self) -> Owner | None:
        """Whose table or chain it is, by the names that programs give; None where nobody is known."""
        names = [self.chain, *(self.words[1:2] if self.native else ())]
        return next((one for one in _OWNERS if any(one.chains.search(name) for name in names)), None)

    @property
    def what(self) -> str:
        """What it does, for a title."""
        return self.ways.title

    @property
    def stops(self) -> str:
        """What it stops, for a sentence: who sends what to whom."""
        return self.ways.sentence

    @property
    def hits(self) -> tuple[Effect, ...]:
        """What would not work."""
        return self.ways.effects

    @property
    def works(self) -> tuple[Effect, ...]:
        """What still would, as it was walked."""
        found = []
        for kind, text in (
            ("neighbours", "containers of one network among themselves"),
            ("published", "published ports, from outside"),
            ("egress", "what containers ask outside"),
            ("local", "ports that are published for this host alone"),
        ):
            walked = [one for one in self.promises.all if one.kind == kind]
            if walked and all(one.kept for one in walked):
                found.append(Effect(text))
        return tuple(found)

    @property
    def entry(self) -> str:
        """The first chain of its owner's that leads to it, as it was walked: where it hands back goes on in others' chains."""
        owner, path = self.owner, [self.chain]
        steps = self.walks[0].result.walk.steps if self.walks[0].going else self.walks[0].result.walk.reply_steps
        for step in reversed(steps):
            if step.effect == f"jump {path[-1]}" and step.cited is not None:
                path.append(step.cited.place.split(" ")[-2])
        return next((name for name in reversed(path) if owner is not None and owner.chains.search(name)), self.chain)

    @property
    def forwarded(self) -> bool:
        """Whether it stands where both devices are known: on hook forward."""
        return all(one.result.walk.decider.iif and one.result.walk.decider.oif for one in self.walks)


def cuts(promises: Promises, site: Site) -> list[Cut]:
    """Give what rules and policies that are not Docker's stop: ways out, neighbours, and answers of published ports.

    Ports that are published for this host alone, and that it cannot reach, are cut as well: nobody else could be meant.

    That a published port cannot be reached from outside is what people write rules for, and is no cut by itself; what the
    same rule stops beside is told with it.
    """
    found: dict[Citation, list[Walked]] = {}
    for one in promises.broken("egress", "neighbours", "published", "local"):
        cited = one.decided
        by_rule = one.code in _BY_RULE or (one.kind == "local" and one.code == "LOCAL_FIREWALL")
        if cited is None or not by_rule or one.astray or promises.own(cited) or NATIVE in cited.place:
            continue
        found.setdefault(cited, []).append(one)
    return [
        Cut(cited, tuple(walks), promises, Ways(site, cited, tuple(walks)))
        for cited, walks in found.items()
        if any(one.kind != "published" or not one.going for one in walks)
    ]


def told_by(
    code: str, promises: Promises, site: Site, rules: EngineRules | None, stale: StaleRules | None
) -> Iterable[Cut]:
    """Give the cuts that a check tells of."""
    return [cut for cut in cuts(promises, site) if _teller(cut, rules, stale) == code]


def _teller(cut: Cut, rules: EngineRules | None, stale: StaleRules | None) -> str:
    """Name the check that tells of a cut."""
    owner = cut.owner
    if other_backend(cut, rules):
        # Where the engine's own rules are gone it is not known which back end it writes to.
        return "" if flushed(cut, rules) else "NET031"
    if stale is not None and stale.holds(cut.cited):
        return "NET052"
    if owner is not None and owner.code and not (cut.policy and not cut.native):
        return owner.code
    if cut.native:
        return "NET051"
    if cut.policy and not cut.local:
        return "NET035"
    if cut.chain != "DOCKER-USER":
        return "NET028"
    return "NET029" if any(one.going for one in cut.walks if one.kind != "published") else "NET067"


def native_engine(rules: EngineRules) -> Yield | None:
    """Say why iptables is not what is judged: the engine writes to nftables itself."""
    return NotApplicable(rules.off) if rules.off and rules.off != SWITCHED_OFF else None


def idle(promises: Promises, networks: Networks) -> Yield | None:
    """Say why nothing can be judged; None where something can."""
    if not networks.all:
        return NotApplicable("no bridge network here")
    if promises.unread:
        return Unknown("iptables", promises.unread)
    if not promises.all:
        return NotApplicable("no container runs in a bridge network")
    return None


def without(cut: Cut, program: str) -> Remedy:
    """Take away the rule that stops it, which is one of iptables."""
    table, chain, number = cut.words[-3:]
    rule = shlex.split(cut.cited.excerpt)
    return Remedy(
        "take away the rule, if it is not meant",
        (Command((program, "-t", table, "-D", chain, *rule)),),
        undo=(Command((program, "-t", table, "-I", chain, number, *rule)),),
        lasts="until-boot",
        for_good=(Note("find what wrote it (a firewall's script, rules saved for boot) and let it leave it out"),),
    )


def let_in(cut: Cut, keep: str = "put the same rules into the file that this table is loaded from") -> Remedy:
    """Let a chain of nftables accept what comes from and goes to bridges."""
    if cut.local:
        return let_itself(cut, "", keep)
    family, table, chain = cut.words[:3]
    if family in {"netdev", "bridge"}:
        return Remedy("take the rule away, or narrow it", (Note(f"nft -a list chain {family} {table} {chain}"),))
    names = ", ".join(f'"{name}"' for name in cut.bridges)
    one = f'"{cut.bridges[0]}"' if len(cut.bridges) == 1 else f"{{ {names} }}"
    where = ("nft", "insert", "rule", family, table, chain)
    steps: tuple[Step, ...] = tuple(Command((*where, word, one, "accept")) for word in ("iifname", "oifname"))
    summary = "let that chain accept what is Docker's; Docker's own chains still judge it"
    return Remedy(summary, steps, lasts="until-boot", for_good=(Note(keep),))


def let_itself(
    cut: Cut, program: str, keep: str = "put the same rules where this host's firewall is written"
) -> Remedy:
    """Let a chain of input or output accept what this host sends itself, and what docker-proxy sends containers."""
    incoming = bool(cut.walks[0].result.walk.decider.iif)
    steps: list[Step] = []
    undo: list[Step] = []
    for device in ("lo", *cut.bridges):
        answers = incoming and device != "lo"
        if cut.native:
            words = (
                "iifname" if incoming else "oifname",
                f'"{device}"',
                *(_NATIVE_ANSWERS if answers else ()),
                "accept",
            )
            steps.append(Command(("nft", "insert", "rule", *cut.words[:3], *words)))
        else:
            rule = ("-i" if incoming else "-o", device, *(_ANSWERS if answers else ()), "-j", "ACCEPT")
            steps.append(Command((program, "-I", cut.chain, *rule)))
            undo.append(Command((program, "-D", cut.chain, *rule)))
    return Remedy(
        "let this host reach itself, and docker-proxy its containers",
        tuple(steps),
        undo=tuple(undo),
        lasts="until-boot",
        for_good=(Note(keep),),
    )


def hand_back(cut: Cut, program: str, keep: str, *, strangers: bool) -> Remedy:
    """Let somebody's chain hand back what is Docker's, so that Docker's own still judge it.

    With `strangers` all that goes to a bridge, else answers alone: whom that firewall keeps out stays out.
    """
    if not cut.forwarded:
        return without(cut, program)
    table = cut.words[-3]
    answers = () if strangers else _ANSWERS
    rules = [
        rule
        for bridge in cut.bridges
        for rule in (("-i", bridge, "-j", "RETURN"), ("-o", bridge, *answers, "-j", "RETURN"))
    ]
    return Remedy(
        f"let chain {cut.entry} hand back what is Docker's; Docker's own chains still judge it",
        tuple(Command((program, "-t", table, "-I", cut.entry, *rule)) for rule in rules),
        undo=tuple(Command((program, "-t", table, "-D", cut.entry, *rule)) for rule in rules),
        lasts="until-boot",
        for_good=(Note(keep),),
        notes=() if strangers else ("whom that firewall keeps from published ports it still does",),
    )


def program_of(cited: Citation, rules: EngineRules | None) -> str:
    """Name what writes where a rule stands: iptables, with the back end where the plain name would write to the other."""
    name = "ip6tables" if cited.record.startswith("net/ip6") else "iptables"
    if cited.record.endswith("-legacy"):
        return f"{name}-legacy"
    its = rules.of("ip6" if name == "ip6tables" else "ip") if rules is not None else None
    return its.program if its is not None and its.tables.backend == "nft" else name


def family_of(cut: Cut, rules: EngineRules | None) -> FamilyRules | None:
    """Give the engine's rules of the family that it is of."""
    return rules.of("ip6" if cut.cited.record.startswith("net/ip6") else "ip") if rules is not None else None


def flushed(cut: Cut, rules: EngineRules | None) -> bool:
    """Whether the engine's own rules are gone: which back end it writes to is not known then."""
    its = family_of(cut, rules)
    return its is not None and its.lacks("filter")


def other_backend(cut: Cut, rules: EngineRules | None) -> bool:
    """Whether it stands in the back end that the engine does not write to."""
    its = family_of(cut, rules)
    return its is not None and not cut.native and cut.cited.record != its.tables.record
