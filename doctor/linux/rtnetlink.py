"""The links, addresses, routes, rules and neighbours of a network namespace, in the shape and words of `ip -j -d`.

Four dumps of NETLINK_ROUTE (rtnetlink(7)) on one socket, decoded by hand: 0.2 ms a namespace where `ip` costs 2 ms.
Each answer is the text of a JSON array with one object a line, so that evidence can be cited by line:

    [
    {"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"link_type":"loopback", ... ,"addr_info":[...]},
    {"ifindex":2,"link_index":7,"ifname":"eth0", ... }
    ]

Keys and values are those of iproute2. Where ours differ: counters, timers and ages are left out, attributes that we do
not decode are kept as `"nla":{"TYPE":"HEX"}`, routes and rules of IPv6 say `"family":"inet6"`, `linkmode` stands in the
links, and inside `info_data` another link is named by its index (`link_index`, `backup_port_index`).
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Self

from doctor.linux import netlink
from doctor.linux.addresses import read_address
from doctor.linux.attributes import array
from doctor.linux.filters import CLASSIFIED, read_filter, read_qdisc, show_filters
from doctor.linux.links import Link, read_link, show_link
from doctor.linux.routes import read_neighbour, read_route, read_rule, show_hop, show_route
from doctor.linux.tcx import attached

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

_GETLINK = 18
_GETADDR = 22
_GETROUTE = 26
_GETNEIGH = 30
_GETRULE = 34
_GETQDISC = 38
_GETTFILTER = 46

# IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: the kernel need not sum up its counters.
_LINKS = bytes(16) + pack("=HHI", 8, 29, 8)


class Route:
    """A NETLINK_ROUTE socket in the network namespace of the calling thread, for all dumps of it.

    Every method raises OSError (errno set) for what the kernel refuses or does not answer in `timeout` seconds.
    """

    def __init__(self, timeout: float) -> None:
        """Open the socket here and now."""
        self._socket = netlink.Socket(netlink.ROUTE, timeout)
        self._known: dict[int, Link] = {}

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self._socket.__exit__(kind, error, trace)

    def links(self, *, filters: bool = False) -> bytes:
        """Give links and their addresses, as `ip -j -d addr` does; with `filters` also of which kinds those of tc are.

        `"filters":{"ingress":["bpf"],"egress":["u32","tcx"]}` is ours: one more dump, two for each link that has any, and
        two questions of bpf(2) for each link.
        """
        links = self._devices(anew=True)
        for index, text in self._filters(links).items() if filters else ():
            if index in links:
                links[index] = links[index]._replace(text=f"{links[index].text},{text}")
        addresses: dict[int, list[str]] = {}
        for payload in self._socket.dump(_GETADDR, bytes(8), "RTM_GETADDR"):
            index, text = read_address(payload)
            addresses.setdefault(index, []).append(text)
        return array(show_link(link, addresses.get(link.ifindex, []), links) for link in links.values())

    def _filters(self, links: Iterable[int]) -> dict[int, str]:
        """Give the kinds of tc's filters by link, where a qdisc for them is there or tcx; a kernel without tc has none."""
        try:
            held = [read_qdisc(payload) for payload in self._socket.dump(_GETQDISC, bytes(20), "RTM_GETQDISC")]
        except OSError:
            held = []
        found: dict[int, dict[str, list[str]]] = {}
        for index in {one for one in held if one}:
            found[index] = {name: self._kinds(index, parent) for name, parent in CLASSIFIED.items()}
        for index, sides in attached(links).items():
            kinds = found.setdefault(index, {name: [] for name in CLASSIFIED})
            for name in sides:
                kinds[name].append("tcx")
        return {index: show_filters(kinds) for index, kinds in found.items() if any(kinds.values())}

    def _kinds(self, index: int, parent: int) -> list[str]:
        body = pack("=BxxxiIII", 0, index, 0, parent, 0)
        try:
            payloads = self._socket.dump(_GETTFILTER, body, "RTM_GETTFILTER")
        except OSError:  # the qdisc has no such side, or is gone
            return []
        return list(dict.fromkeys(kind for kind in map(read_filter, payloads) if kind))

    def routes(self) -> bytes:
        """Give the routes of all tables and both families, as `ip -j -d route show table all` does."""
        links = self._devices()
        found = (read_route(payload) for payload in self._socket.dump(_GETROUTE, bytes(12), "RTM_GETROUTE"))
        return array(show_route(one, links) for one in found if one is not None)

    def rules(self) -> bytes:
        """Give the rules of both families, as `ip -j -d rule` does for one."""
        found = (read_rule(payload) for payload in self._socket.dump(_GETRULE, bytes(12), "RTM_GETRULE"))
        return array(rule for rule in found if rule is not None)

    def neighbours(self) -> bytes:
        """Give the neighbours of both families, as `ip -j -d neigh` does."""
        links = self._devices()
        found = (read_neighbour(payload) for payload in self._socket.dump(_GETNEIGH, bytes(12), "RTM_GETNEIGH"))
        return array(f"{{{show_hop(one, links)}}}" for one in found if one is not None)

    def _devices(self, *, anew: bool = False) -> dict[int, Link]:
        """Give the links by index: read once for all dumps, for their names."""
        if anew or not self._known:
            found = [read_link(payload) for payload in self._socket.dump(_GETLINK, _LINKS, "RTM_GETLINK")]
            self._known = {link.ifindex: link for link in found}
        return self._known
