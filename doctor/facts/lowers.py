"""The list of layers below each layer (`lower`), against what the layer database says it has to be.

`l/JQHT...:l/6Y5I...` is the short links of the layers below, the nearest first. Source: moby
`daemon/graphdriver/overlay2/overlay.go` (getLower).
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.facts.images import Images
from doctor.facts.owners import Owners
from doctor.facts.store import LINK, LayerDb, Overlay
from doctor.registry import fact

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAIRED = 50
"""Wrong lists among which exchanged records are looked for: more than that is no exchange."""

Kind = Literal["missing", "empty", "malformed", "unknown", "twice", "itself", "order"]


class LowerFault(Struct, frozen=True):
    """One layer whose list is wrong: how, the word of the list that shows it, and the list as it has to be (or empty).

    `lowest` says that it must have none.
    """

    id: str
    kind: Kind
    detail: str
    wanted: str
    lowest: bool = False


class _Stacks:
    """For each chain, the list that a layer on top of it has to have; empty where a link or a layer of it is not known."""

    def __init__(self, overlay: Overlay, layers: LayerDb, images: Images, owned: frozenset[str]) -> None:
        """Know which directories stand for two chains: nobody can say what is below those."""
        self.overlay = overlay
        self.layers = layers
        self.made = images.chains
        self.owned = owned
        counted = Counter(one.cache_id for one in layers.chains.values())
        self.shared = {cache for cache, count in counted.items() if count > 1}
        self.done: dict[str, str] = {}

    @cached_property
    def claimed(self) -> frozenset[str | None]:
        """The names that any layer says it has."""
        return frozenset(one.link for one in self.overlay.layers.values())

    def of(self, chain: str) -> str:
        """Give the list for one chain; chains that name each other as parents have none."""
        todo = []
        seen = set()
        while chain not in self.done:
            held = self.layers.chains.get(chain)
            cache = held.cache_id if held else ""
            if not cache or chain in seen or cache not in self.overlay.layers or cache in self.shared:
                self.done[chain] = ""
                break
            seen.add(chain)
            parent = self.parent(chain)
            todo.append((chain, cache, parent))
            if not parent:
                break
            chain = parent
        for name, cache, parent in reversed(todo):
            if name in self.done:
                continue
            link = self.overlay.name_of(cache)
            below = self.done.get(parent, "") if parent else ""
            self.done[name] = (f"l/{link}:{below}" if parent else f"l/{link}") if link and (below or not parent) else ""
        return self.done.get(todo[0][0], "") if todo else self.done.get(chain, "")

    def parent(self, chain: str) -> str:
        """Give the parent of a chain: an image that has both knows it for certain."""
        made = self.made.get(chain)
        if made is not None:
            return made[0]
        held = self.layers.chains.get(chain)
        return (held.parent or "") if held else ""

    def chain_of(self, chain: str) -> list[str]:
        """Give a chain and those below it, as far as the layer database knows them."""
        found: list[str] = []
        while chain and chain not in found and chain in self.layers.chains:
            found.append(chain)
            chain = self.parent(chain)
        return found


class Lowers(Struct, frozen=True, dict=True):
    """Every wrong list of a layer that something settled stands on."""

    faults: tuple[LowerFault, ...]
    stacks: _Stacks
    exchanged: tuple[tuple[str, str], ...] = ()
    """Chains whose records name each other's directory: the lists on disk are right, and not among `faults`."""

    def below(self, chain: str) -> str:
        """Give the list that a layer on top of a chain has to have; empty where that cannot be known."""
        return self.stacks.of(chain)

    @cached_property
    def spare(self) -> dict[str | None, list[str]]:
        """The directories that nothing refers to, but for init layers, by their list: one may be what a record has lost."""
        found: dict[str | None, list[str]] = {}
        for layer in self.stacks.overlay.layers.values():
            if layer.id not in self.stacks.owned and not layer.id.endswith("-init"):
                found.setdefault(layer.lower, []).append(layer.id)
        return found


@fact
def lowers(overlay: Overlay, layers: LayerDb, images: Images, owners: Owners) -> Lowers:
    """Compare every list."""
    stacks = _Stacks(overlay, layers, images, owners.owned)
    every = (*_of_images(owners, stacks), *_of_containers(owners, stacks))
    if _all_follow(overlay, owners, stacks, every):
        return Lowers((), stacks)
    faults = []
    for identity, parent, init in every:
        layer = overlay.layers.get(identity)
        if layer is None or identity in overlay.unread:
            continue
        wanted = stacks.of(parent) if parent else ""
        if init:
            link = overlay.name_of(init)
            wanted = f"l/{link}:{wanted}" if link and wanted else ""
        if layer.lower != (wanted or None):
            found = _judge(overlay, owners, stacks, identity, parent, wanted, init)
            if found:
                faults.append(found)
    exchanged = _exchanged(overlay, owners, faults) if len(faults) > 1 else []
    if exchanged:
        names = {overlay.layers[one.id].link for pair in exchanged for one in pair}
        faults = [one for one in faults if not names & _names(overlay, one.id, one.wanted)]
    pairs = sorted(sorted((owners.chain_of[one.id], owners.chain_of[other.id])) for one, other in exchanged)
    return Lowers(tuple(faults), stacks, tuple((one, other) for one, other in pairs))


def _names(overlay: Overlay, identity: str, wanted: str) -> set[str | None]:
    """Give the names in a list and in what it has to be, and the layer's own."""
    layer = overlay.layers[identity]
    return {layer.link, *(word[2:] for text in (layer.lower or "", wanted) for word in text.split(":"))}


def _exchanged(overlay: Overlay, owners: Owners, faults: list[LowerFault]) -> list[tuple[LowerFault, LowerFault]]:
    """Find layers whose lists are right for each other's place: not the lists were exchanged, but the records.

    Exchanged lists would leave those on top alone; whatever stands on a directory was made when its record was right.
    """
    found = []
    left = [one for one in faults if one.id in owners.chain_of][:_PAIRED]
    for number, one in enumerate(left):
        for other in left[number + 1 :]:
            if not (_fits(overlay, one, other) or _fits(overlay, other, one)):
                continue
            names = {overlay.layers[one.id].link, overlay.layers[other.id].link}
            on_top = [third for third in faults if third.id not in {one.id, other.id}]
            if any(names & _names(overlay, third.id, "") for third in on_top):
                found.append((one, other))
    taken: set[str] = set()
    pairs = []
    for one, other in found:
        if not taken & {one.id, other.id}:
            taken |= {one.id, other.id}
            pairs.append((one, other))
    return pairs


def _fits(overlay: Overlay, one: LowerFault, other: LowerFault) -> bool:
    """Whether the second has the list that the first should have, and the first that of the second or the second below it."""
    mine, theirs = overlay.layers[one.id], overlay.layers[other.id]
    if (theirs.lower or "") != one.wanted:
        return False
    words = (mine.lower or "").split(":")
    return (mine.lower or "") == other.wanted or f"l/{theirs.link}" in words


def _all_follow(overlay: Overlay, owners: Owners, stacks: _Stacks, every: tuple[tuple[str, str, str], ...]) -> bool:
    """Whether each list is the name and the list of the layer right below, itself one of these: then all are right."""
    layers, chains = overlay.layers, stacks.layers.chains
    on_top = {}
    for identity in overlay.named:
        if owners.judged(identity) and identity not in stacks.shared:
            layer = layers[identity]
            on_top[identity] = f"l/{layer.link}:{layer.lower}" if layer.lower else f"l/{layer.link}"
    for identity, parent, init in every:
        wanted = None
        if init or parent:
            below = chains.get(parent)
            wanted = on_top.get(init or (below.cache_id if below else None) or "")
            if wanted is None:
                return False
        held = layers.get(identity)
        if held is None or held.lower != wanted:
            return False
    return True


def _of_images(owners: Owners, stacks: _Stacks) -> Iterator[tuple[str, str, str]]:
    """Give each directory that an image stands on, and the chain below it."""
    for cache, name in owners.chain_of.items():
        if cache in owners.images and cache not in stacks.shared:
            yield cache, stacks.parent(name), ""


def _of_containers(owners: Owners, stacks: _Stacks) -> Iterator[tuple[str, str, str]]:
    """Give each directory of a container, the chain below it, and the init layer between the two."""
    for mount in stacks.layers.mounts.values():
        parent = mount.parent or ""
        if parent not in stacks.layers.chains or owners.tops.get(mount.container, parent) != parent:
            continue  # what it stands on has to be known first
        if mount.init_id in owners.containers:
            yield mount.init_id or "", parent, ""
        if mount.mount_id in owners.containers:
            yield mount.mount_id or "", parent, mount.init_id or ""


def _judge(
    overlay: Overlay, owners: Owners, stacks: _Stacks, identity: str, parent: str, wanted: str, init: str
) -> LowerFault | None:
    """Say what is wrong with a list that is not what was expected; nothing where another directory may be as right."""
    layer = overlay.layers[identity]
    have = layer.lower
    if have is None:
        return LowerFault(identity, "missing", "", wanted) if parent or init else None
    if not have.strip():
        return LowerFault(identity, "empty", "", wanted)
    words = have.split(":")
    for word in words:
        if not word.startswith("l/") or not LINK.fullmatch(word[2:]):
            return LowerFault(identity, "malformed", word, wanted)
    chains = stacks.chain_of(parent)
    caches = [stacks.layers.chains[name].cache_id or "" for name in chains]
    own = layer.link or ""
    for number, word in enumerate(words):
        if word in words[:number]:
            return LowerFault(identity, "twice", word, wanted)
        if word[2:] == own and own in overlay.names_of(identity):
            return LowerFault(identity, "itself", word, wanted)
    if (parent and not wanted) or any(overlay.gone(cache) for cache in (*caches, *((init,) if init else ()))):
        return None  # a directory or a name below that is gone is the cause
    for word in words:
        if word[2:] not in overlay.links and word[2:] not in stacks.claimed:
            return LowerFault(identity, "unknown", word, wanted)
    expected = ([init] if init else []) + caches
    return _order(overlay, owners, identity, words, expected, wanted)


def _order(
    overlay: Overlay, owners: Owners, identity: str, words: list[str], expected: list[str], wanted: str
) -> LowerFault | None:
    """Compare directory by directory.

    BuildKit may have built on a directory of its own that holds the same layer as the one in the layer database: only a
    directory that is in the layer database as another layer is a wrong one.
    """
    held = []
    for word in words:
        target = overlay.links.get(word[2:], "")
        held.append(target[3:-5] if target.startswith("../") and target.endswith("/diff") else "")
    if not all(expected) or not all(held):
        return None
    known = [one in owners.owned for one in held]
    if len(held) == len(expected):
        wrong = [
            word for word, one, right, sure in zip(words, held, expected, known, strict=True) if one != right and sure
        ]
        return LowerFault(identity, "order", wrong[0], wanted) if wrong else None
    if all(known):
        detail = f"{len(held)} layers, not {len(expected)}"
        return LowerFault(identity, "order", detail, wanted, lowest=not expected)
    return None
