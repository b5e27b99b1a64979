"""The vocabulary of faults: what may be done to a host, in words of those who do it, each with an undo.

A fault is carried out with the host's own programs, so it can be put on a lab and on a live engine alike. `make` gives
what takes it back: functions, to be called in the reverse order. Texts may have words in braces (`doctor.labs.ground.Names`).
"""

from __future__ import annotations

from doctor.labs.faults.base import Fault, Place, Undo, take_back
from doctor.labs.faults.engine import Daemon, NetnsLeak, ProcessSignal, Run, Unmount, Wait
from doctor.labs.faults.files import FileMode, FileRemove, FileReplace, FileWrite, LayerDamage
from doctor.labs.faults.firewall import NftTable, RuleAppend, RuleDelete, RuleInsert, RulesFlush, RulesPolicy
from doctor.labs.faults.links import (
    AddressAdd,
    AddressDelete,
    LinkAdd,
    LinkDelete,
    LinkMaster,
    LinkMtu,
    LinkRename,
    LinkState,
    PolicyAdd,
    RouteAdd,
    RouteDelete,
    Sysctl,
)

__all__ = ["KINDS", "Fault", "Place", "Undo", "take_back"]

KINDS: dict[str, type[Fault]] = {
    "rule.insert": RuleInsert,
    "rule.append": RuleAppend,
    "rule.delete": RuleDelete,
    "rules.flush": RulesFlush,
    "rules.policy": RulesPolicy,
    "nft.table": NftTable,
    "sysctl": Sysctl,
    "link.state": LinkState,
    "link.master": LinkMaster,
    "link.mtu": LinkMtu,
    "link.rename": LinkRename,
    "link.add": LinkAdd,
    "link.delete": LinkDelete,
    "address.add": AddressAdd,
    "address.delete": AddressDelete,
    "route.add": RouteAdd,
    "route.delete": RouteDelete,
    "policy.add": PolicyAdd,
    "file.write": FileWrite,
    "file.replace": FileReplace,
    "file.remove": FileRemove,
    "file.mode": FileMode,
    "daemon": Daemon,
    "process.signal": ProcessSignal,
    "netns.leak": NetnsLeak,
    "unmount": Unmount,
    "layer": LayerDamage,
    "run": Run,
    "wait": Wait,
}
"""By the word that a file has for it."""
