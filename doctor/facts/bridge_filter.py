"""Whether what a bridge forwards from port to port meets the rules of iptables: br_netfilter and its sysctls."""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.sysctls import Value
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, tree_entries


class BridgeFilter(Struct, frozen=True):
    """`bridge-nf-call-iptables` and its like by name; `loaded`: br_netfilter is there, and so are its sysctls."""

    loaded: bool
    values: dict[str, Value]
    cited: Citation

    def of(self, version: int) -> Value | None:
        """Give the switch of a version of IP."""
        return self.values.get("bridge-nf-call-iptables" if version == 4 else "bridge-nf-call-ip6tables")  # noqa: PLR2004 - IPv4


@fact
def bridge_filter(snapshot: Snapshot) -> BridgeFilter:
    """Read /proc/sys/net/bridge, which is there as soon as br_netfilter is."""
    tree = snapshot.get("net/sysctl/bridge")
    place = "/proc/sys/net/bridge"
    if tree.status == "absent":
        return BridgeFilter(loaded=False, values={}, cited=Citation(tree.name, 0, "br_netfilter is not loaded", place))
    if not tree.readable:
        raise EvidenceMissing("sysctls", f"{place}: {tree.why or tree.status}")
    values = {
        one.path: Value(one.content.strip(), Citation(tree.name, one.line, one.content.strip(), f"{place}/{one.path}"))
        for one in tree_entries(tree)
        if one.type == "f"
    }
    return BridgeFilter(loaded=True, values=values, cited=Citation(tree.name, 0, "", place))
