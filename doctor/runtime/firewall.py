"""The rules that the engine writes for a World, put into the kernel: all in one restore at the start, then what changes.

What they are is `doctor.engine.rules`; here is what the engine was told, made of a World, and the loading. After the start
rules are added and taken out as the engine's own commands would: at the head or the end of a chain, whatever else is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.engine.rules import Binding, Bridge, Family, Link, Ruleset, Site, dialect, native, version
from doctor.engine.rules import Endpoint as Place
from doctor.engine.rules.compare import TABLES, Chains, compare, lacking, surplus, whole
from doctor.linux import nfnetlink
from doctor.runtime import restore
from doctor.runtime.bridge import OPTION, link_index
from doctor.runtime.model import Bound, Container, Endpoint, Network, World
from doctor.runtime.names import default_endpoint, exposed, links
from doctor.runtime.restore import RestoreError, Running, finish_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FAMILIES: tuple[Family, Family] = ("ip", "ip6")
_PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
_KERNELS = frozenset({"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"})
_SECONDS = 2.0
_CLOSED = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
OPTIONS = ("--noflush", "--wait")

Joined = tuple[Container, Endpoint]


# What the engine was told


def on(values: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """Read a switch of the daemon; words are read as the engine reads those of labels and options."""
    value = values.get(key, default)
    return value.lower() in {"true", "1", "t"} if isinstance(value, str) else bool(value)


def is_native(world: World) -> bool:
    """Whether rules go to nftables itself."""
    return world.settings.dialect == "29-nftables" or world.settings.values.get("firewall-backend") == "nftables"


def site(world: World, joined: Iterable[Joined]) -> Site:
    """Give what decides the rules; `joined` are the endpoints in the order in which they were made."""
    values = world.settings.values
    release = version(world.settings.version)
    ends = list(joined)
    # Until 26 rules of IPv6 needed the flag `experimental`.
    six = on(values, "ip6tables", default=release >= (27, 0, 0)) and (
        release >= (27, 0, 0) or on(values, "experimental", default=False)
    )
    return Site(
        iptables=on(values, "iptables", default=True),
        ip6tables=six,
        proxy=on(values, "userland-proxy", default=True),
        direct=on(values, "allow-direct-routing", default=False),
        mark=_mark(str(values.get("bridge-accept-fwmark") or "")),
        mirrored=bool(link_index("loopback0")),
        bridges=tuple(_bridge(one) for one in world.networks.values() if one.spec.driver == "bridge"),
        endpoints=tuple(_place(world, container, end) for container, end in ends if end.network_id in world.networks),
        links=tuple(link for container, end in ends for link in _links(world, container, end)),
    )


def _mark(value: str) -> str:
    """Spell a mark as iptables-save does; empty for what is none."""
    try:
        return "/".join(f"{int(part, 0):#x}" for part in value.split("/") if part)
    except ValueError:
        return ""


def _bridge(network: Network) -> Bridge:
    options = network.spec.options
    subnets = {6 if ":" in pool.subnet else 4: pool.subnet for pool in reversed(network.pools)}
    return Bridge(
        name=network.bridge,
        subnet4=subnets.get(4, "") if network.spec.ipv4 else "",
        subnet6=subnets.get(6, "") if network.spec.ipv6 else "",
        internal=network.spec.internal,
        icc=on(options, OPTION + "enable_icc", default=True),
        masquerade=on(options, OPTION + "enable_ip_masquerade", default=True),
        mode4=options.get(OPTION + "gateway_mode_ipv4") or "nat",
        mode6=options.get(OPTION + "gateway_mode_ipv6") or "nat",
        snat4=options.get("com.docker.network.host_ipv4", ""),
        snat6=options.get("com.docker.network.host_ipv6", ""),
        trusted=tuple(one for one in options.get(OPTION + "trusted_host_interfaces", "").split(":") if one),
    )


def rank(world: World, container: Container, end: Endpoint) -> tuple[int, int, str]:
    """Order a container's endpoints: the first is its way out."""
    name = world.networks[end.network_id].spec.name
    priority = next((one.priority for one in container.spec.networks if one.network == name), 0)
    return -priority, -(bool(end.gateway) + bool(end.gateway6)), name


def ways_out(world: World, container: Container) -> tuple[Endpoint | None, Endpoint | None]:
    """Choose the endpoints of a container's default routes, of IPv4 and IPv6: published ports belong to them.

    As libnetwork does: the one with gateways of more families, then by the network's name; internal ones never.
    """
    found: list[Endpoint | None] = []
    for field in ("gateway", "gateway6"):
        able = [
            end
            for end in container.endpoints
            if getattr(end, field)
            and end.network_id in world.networks
            and not world.networks[end.network_id].spec.internal
        ]
        found.append(min(able, key=lambda end: rank(world, container, end), default=None))
    return found[0], found[1]


def _place(world: World, container: Container, end: Endpoint) -> Place:
    way4, way6 = ways_out(world, container)
    bindings = tuple(
        Binding(port.port, port.protocol, port.host_port, port.host_ip)
        for port in container.ports
        if end is (way6 if ":" in port.host_ip and way6 else way4 or way6)
    )
    return Place(world.networks[end.network_id].bridge, end.address, end.address6, bindings)


def _links(world: World, container: Container, end: Endpoint) -> list[Link]:
    """Give the exceptions that `--link` makes where containers may not talk."""
    network = world.networks.get(end.network_id)
    if network is None or network.spec.name != "bridge" or _bridge(network).icc:
        return []
    found = []
    for target in links(world, container).values():
        its = default_endpoint(world, target)
        if its is not None and its.address and end.address:
            found.append(Link(network.bridge, end.address, its.address, tuple(exposed(target))))
    return found


# Loading


class Firewall:
    """The engine's rules of one host, as they were written last."""

    def __init__(self, world: World) -> None:
        """Start with nothing written."""
        self._world = world
        self._written: dict[Family, Ruleset] = {}
        self._native: dict[Family, native.Native] = {}
        self._loading: list[Running] = []
        self._mend: Callable[[], None] | None = None
        """What is done where what is loading is refused."""

    def start(self, told: Site, drops: Iterable[Family] = ()) -> None:
        """Begin to write all rules, in one restore a family; `drops`: families whose forwarding the engine just turned on.

        Rules of an earlier run of the engine are mended: what is missing is put in its place, what is too much goes, and
        those of others stay where they are. `wait` is to be called. Raises RestoreError.
        """
        if is_native(self._world):
            self._start_native(told)
            return
        wanted = self._wanted(told)
        if not wanted:
            return
        closed = frozenset(drops)
        texts = {family: whole(rules) for family, rules in wanted.items()}
        if _used():
            texts = {family: _mended(rules, told, family) for family, rules in wanted.items()}
        for family in wanted:
            if family in closed:
                texts[family] += _CLOSED
        self._loading = _begin(texts)
        self._written = wanted

    def drop(self, families: Iterable[Family]) -> None:
        """Let FORWARD drop what no rule takes, where the engine writes rules. Raises RestoreError."""
        _load({family: _CLOSED for family in families if family in self._written})

    def update(self, told: Site) -> None:
        """Begin to write what is new and to take out what is no more; `wait` is to be called. Raises RestoreError."""
        if is_native(self._world):
            self._update_native(told)
            return
        wanted, old = self._wanted(told), self._written
        texts = {family: changes(old.get(family), rules) for family, rules in wanted.items()}
        self._written = wanted
        self._mend = lambda: _load_what_can_be(old, wanted)
        self._loading = _begin(texts)

    def wait(self) -> None:
        """Wait until what was begun is written. Raises RestoreError."""
        loading, self._loading = self._loading, []
        mend, self._mend = self._mend, None
        try:
            finish_all(loading)
        except RestoreError:
            if mend is None:
                raise
            mend()
            if not is_native(self._world):
                raise

    def raise_jumps(self) -> None:
        """Put the jumps of FORWARD at its head again, as releases before 28 do with each network. Raises RestoreError."""
        if not self._written or version(self._world.settings.version) >= (28, 0, 0):
            return
        texts = {}
        for family, rules in self._written.items():
            jumps = [
                one.text for one in rules.chains.get(("filter", "FORWARD"), ()) if one.text.startswith("-j DOCKER-")
            ]
            lines = [line for text in reversed(jumps) for line in (f"-D FORWARD {text}", f"-I FORWARD {text}")]
            texts[family] = "".join(f"{line}\n" for line in ("*filter", *lines, "COMMIT")) if jumps else ""
        _load({family: text for family, text in texts.items() if text})

    def _wanted(self, told: Site) -> dict[Family, Ruleset]:
        write = dialect(self._world.settings.version)[0].write
        return {family: write(told, family) for family in _families(told)}

    def _start_native(self, told: Site) -> None:
        self._native = _native_wanted(told)
        self._loading = _begin_native(self._native)

    def _update_native(self, told: Site) -> None:
        wanted = _native_wanted(told)
        text = "".join(
            native.change(self._native[family], one) for family, one in wanted.items() if family in self._native
        )
        self._native = wanted
        if text:
            # Somebody flushed: the engine writes the whole table again (libnetwork/internal/nftables, Apply).
            self._mend = lambda: finish_all(_begin_native(wanted))
            self._loading = [restore.start(("nft", "-f", "-"), text)]


def _begin_native(wanted: Mapping[Family, native.Native]) -> list[Running]:
    return [restore.start(("nft", "-f", "-"), "".join(native.whole(one) for one in wanted.values()))]


def _load_what_can_be(old: Mapping[Family, Ruleset], wanted: Mapping[Family, Ruleset]) -> None:
    """Take out rules one by one where taking them out at once fails: somebody else took some."""
    for family, rules in wanted.items():
        held = _saved(family)
        before = old.get(family)
        lines: dict[str, list[str]] = {}
        for (table, chain), them in (before.chains if before else {}).items():
            kept = {one.text for one in rules.chains.get((table, chain), ())}
            gone = [one.text for one in them if one.text not in kept and one.text in held.get((table, chain), ())]
            lines.setdefault(table, []).extend(f"-D {chain} {text}" for text in gone)
        text = "".join(
            f"*{table}\n" + "".join(f"{one}\n" for one in them) + "COMMIT\n" for table, them in lines.items() if them
        )
        if text:
            _load({family: text})


def _families(told: Site) -> list[Family]:
    """Give the families that the engine writes rules of."""
    return [family for family in FAMILIES if told.iptables and (family == "ip" or told.ip6tables)]


def _native_wanted(told: Site) -> dict[Family, native.Native]:
    return {family: native.write(told, family) for family in _families(told)}


def changes(old: Ruleset | None, new: Ruleset) -> str:
    """Print what makes one set of rules of the other, as input of iptables-restore --noflush; empty: nothing does.

    >>> from doctor.engine.rules import Ruleset, Written
    >>> before = Ruleset("ip", (), {("filter", "DOCKER"): (Written("-j A", top=False),)})
    >>> after = Ruleset("ip", (), {("filter", "DOCKER"): (Written("-j B", top=True), Written("-j C", top=False))})
    >>> print(changes(before, after), end="")
    *filter
    -D DOCKER -j A
    -I DOCKER -j B
    -A DOCKER -j C
    COMMIT
    """
    if old is None:
        return whole(new)
    text = ""
    for table in TABLES:
        lines: list[str] = []
        for held, chain in dict.fromkeys((*old.chains, *new.chains)):
            if held == table:
                before = [one.text for one in old.chains.get((held, chain), ())]
                after = new.chains.get((held, chain), ())
                texts = {one.text for one in after}
                lines += [f"-D {chain} {one}" for one in before if one not in texts]
                fresh = [one for one in after if one.text not in before]
                lines += [f"-I {chain} {one.text}" for one in reversed(fresh) if one.top]
                lines += [f"-A {chain} {one.text}" for one in fresh if not one.top]
        if lines:
            text += "".join(f"{line}\n" for line in (f"*{table}", *lines, "COMMIT"))
    return text


def _used() -> bool:
    """Whether the namespace may have rules already; cheap, and True where it cannot be told."""
    try:
        if Path("/proc/net/ip_tables_names").read_text(encoding="ascii").strip():
            return True
    except PermissionError:
        pass  # in a user namespace that list is not ours to read; a namespace that was just made has none
    except OSError:
        pass
    try:
        return any(family in FAMILIES for family, _ in nfnetlink.tables(_SECONDS))
    except OSError:
        return True


def _mended(rules: Ruleset, told: Site, family: Family) -> str:
    """Print what is too much and what is missing of the rules that are there."""
    found = compare(rules, _saved(family), frozenset(one.name for one in told.bridges))
    # Rules go first: a chain can be taken away when nothing leads to it any more.
    return surplus(found) + lacking(found)


def _saved(family: Family) -> Chains:
    """Read what is there, in the spelling of iptables-save. Raises RestoreError."""
    text = restore.finish(restore.start((f"{_PROGRAMS[family]}-save",)))
    chains: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in text.split("\n"):
        if line[:1] == "*":
            table = line[1:]
        elif line[:1] == ":":
            chains[table, line[1:].split(" ")[0]] = []
        elif line[:3] == "-A ":
            _, chain, rule = line.split(" ", 2)
            chains.setdefault((table, chain), []).append(rule)
    return {key: tuple(held) for key, held in chains.items()}


def _load(texts: Mapping[Family, str]) -> None:
    """Load rules of both families side by side. Raises RestoreError."""
    finish_all(_begin(texts))


def _begin(texts: Mapping[Family, str]) -> list[Running]:
    """Begin to load rules of both families; `finish_all` waits. Raises RestoreError."""
    return [restore.start((f"{_PROGRAMS[family]}-restore", *OPTIONS), text) for family, text in texts.items() if text]


def refused(world: World, error: RestoreError, joining: Iterable[str], *, proxy: bool, classic: bool) -> str:
    """Say in the engine's words which port's rule could not be written, of containers by id; else what the program said.

    `classic` is a release before 28.
    """
    for container_id in joining:
        container = world.containers[container_id]
        way, _ = ways_out(world, container)
        if way is None or not container.ports:
            continue
        link = world.networks[way.network_id].bridge
        failed = failed_port(error, container.ports[0], way.address, link, proxy=proxy)
        words = f"driver failed programming external connectivity on endpoint {container.spec.name} ({way.id}): "
        return f"{words} {failed}" if classic else f"failed to set up container networking: {words}{failed}"
    return f"failed to set up IP tables: {error}"


def failed_port(error: RestoreError, bound: Bound, address: str, bridge: str, *, proxy: bool) -> str:
    """Say in the engine's words that the rule of a published port could not be written."""
    where = "0/0" if bound.host_ip in {"", "0.0.0.0"} else bound.host_ip  # noqa: S104 - compared with
    said = error.said.rpartition("failed: ")[2] or error.said
    near = f" ! -i {bridge}" if proxy else ""
    return (
        f"(iptables failed: iptables --wait -t nat -A DOCKER -p {bound.protocol} -d {where} --dport {bound.host_port} "
        f"-j DNAT --to-destination {address}:{bound.port}{near}: iptables: {said}\n (exit status 1))"
    )
