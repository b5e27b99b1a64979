"""Networks and endpoints as values: what the engine makes of `docker network create`, of docker0's options, of a start.

Pure but for chance. Source: moby `daemon/network.go`, `daemon/daemon_unix.go` initBridgeDriver, `libnetwork/network.go`
and `libnetwork/endpoint.go`; the words of errors are those of live 20.10.24, 26.1.5 and 28.5.2.
"""

from __future__ import annotations

import secrets
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from doctor.engine.rules import version
from doctor.runtime import ipam
from doctor.runtime.bridge import MTU, OPTION, mac_of, random_mac, veth_name
from doctor.runtime.firewall import rank
from doctor.runtime.ipam import AddressError
from doctor.runtime.model import Attachment, Container, Endpoint, Network, NetworkSpec, Pool, Settings, World
from doctor.runtime.names import hostname, short_id

if TYPE_CHECKING:
    from collections.abc import Iterable

NEW_MACS = (28, 0, 0)
"""The first release that makes link-layer addresses at random; before, one is made from the IPv4 address."""

NEW_WORDS = (25, 0, 0)
"""The first release that checks a network's configuration as a whole, and gives no gateway in an internal network."""

_ROOM = 80
"""The longest prefix that leaves the 48 bits of a link-layer address."""

OWN_IPV6 = (27, 0, 0)
"""The first release that finds an IPv6 subnet by itself."""


class NetworkError(Exception):
    """What the daemon says after `Error response from daemon: `."""


def release(settings: Settings) -> tuple[int, int, int]:
    """Give the release that the daemon says it is."""
    return version(settings.version)


# Networks


def make_network(world: World, spec: NetworkSpec, identity: str, created: str, routes: Iterable[str]) -> Network:
    """Give the network that the engine would make; subnets are elected around `routes` of the host. Raises NetworkError."""
    if spec.driver != "bridge":
        return Network(identity, spec, "", (), created)
    name = spec.options.get(OPTION + "name") or f"br-{identity[:12]}"
    for other in world.networks.values():
        if other.bridge == name:
            raise NetworkError(f"network with name {name} already exists")
    try:
        pools = _pools(world, spec, [ip_network(one, strict=False) for one in routes])
    except AddressError as error:
        raise NetworkError(str(error)) from error
    return Network(identity, spec, name, pools, created)


def _pools(world: World, spec: NetworkSpec, routes: list[ipam.Subnet]) -> tuple[Pool, ...]:
    """Check the pools that were given, and elect those that were not. Raises AddressError."""
    now = release(world.settings)
    taken = [ip_network(pool.subnet) for one in world.networks.values() for pool in one.pools]
    given: list[Pool] = []
    for pool in spec.pools:
        subnet = ipam.network(pool.subnet)
        if now >= NEW_WORDS and str(subnet) != pool.subnet:
            raise AddressError(f"invalid network config:\ninvalid subnet {pool.subnet}: it should be {subnet}")
        if any(ipam.overlap(subnet, one) for one in taken):
            prefix = "invalid pool request: " if now >= NEW_MACS else ""
            raise AddressError(prefix + ipam.OVERLAP)
        taken.append(subnet)
        given.append(_completed(spec, pool, subnet.version))
    if spec.ipv4 and not any(":" not in pool.subnet for pool in given):
        pools = ipam.default_pools(world.settings.values.get("default-address-pools"))
        words = ipam.EXHAUSTED_28 if now >= OWN_IPV6 else ipam.EXHAUSTED
        elected = _completed(spec, Pool(str(ipam.elect(pools, (*taken, *routes), words=words))), 4)
        given = [elected, *given] if now < NEW_WORDS else [*given, elected]
    if spec.ipv6 and not any(":" in pool.subnet for pool in given):
        if now < OWN_IPV6:
            raise AddressError(ipam.EXHAUSTED.format(family="IPv6"))
        six = [ipam.ula(secrets.token_hex(8), 0)]
        given.append(_completed(spec, Pool(str(ipam.elect(six, taken, 6))), 6))
    return tuple(given)


def _completed(spec: NetworkSpec, pool: Pool, number: int) -> Pool:
    """Give a pool its gateway; a bridge that is isolated has none. Raises AddressError."""
    if spec.options.get(f"{OPTION}gateway_mode_ipv{number}") == "isolated":
        return Pool(str(ipam.network(pool.subnet)), pool.range, "", pool.aux)
    return ipam.complete(pool, number)


def default_spec(settings: Settings, address: str = "") -> NetworkSpec | None:
    """Give what the daemon's options make of the network `bridge`; None for `--bridge none`.

    `address` is what the bridge has already (`172.17.0.1/16`): it is kept where no `bip` says otherwise.
    """
    values = settings.values
    name = str(values.get("bridge") or "docker0")
    if name == "none":
        return None
    six = bool(values.get("ipv6"))
    pools = [pool for pool in (_default_pool(values, address), _default_pool6(values) if six else None) if pool]
    options = {
        OPTION + "default_bridge": "true",
        OPTION + "enable_icc": _word(values.get("icc", True)),
        OPTION + "enable_ip_masquerade": _word(values.get("ip-masq", True)),
        OPTION + "host_binding_ipv4": str(values.get("ip") or "0.0.0.0"),  # noqa: S104 - the engine's default
        OPTION + "name": name,
        MTU: str(values.get("mtu") or 1500),
    }
    return NetworkSpec("bridge", pools=tuple(pools), ipv6=six, options=options)


def _word(value: object) -> str:
    return "true" if value else "false"


def _default_pool(values: dict[str, Any], address: str) -> Pool | None:
    told = str(values.get("bip") or address)
    part = str(values.get("fixed-cidr") or "")
    if not told and not part:
        return None
    aux = {"DefaultGatewayIPv4": str(values["default-gateway"])} if values.get("default-gateway") else {}
    if not told:
        return Pool(part, "", "", aux)
    interface = ip_interface(told)
    if interface.ip in {interface.network.network_address, interface.network.broadcast_address}:
        # moby's IPAM gives neither away (libnetwork/ipams/defaultipam).
        why = f"failed to allocate gateway ({interface.ip}): Address already in use"
        raise NetworkError(f'Error creating default "bridge" network: {why}')
    return Pool(str(interface.network), part, str(interface.ip), aux)


def _default_pool6(values: dict[str, Any]) -> Pool | None:
    told, part = str(values.get("bip6") or ""), str(values.get("fixed-cidr-v6") or "")
    aux = {"DefaultGatewayIPv6": str(values["default-gateway-v6"])} if values.get("default-gateway-v6") else {}
    if told:
        interface = ip_interface(told)
        return Pool(str(interface.network), part, str(interface.ip), aux)
    return Pool(part, "", "", aux) if part else None


# Endpoints


def attachments(container: Container) -> tuple[Attachment, ...]:
    """Give the networks that a container is started in, the one of its way out first."""
    return container.spec.networks or (Attachment("bridge"),)


def find(world: World, name: str) -> Network:
    """Give a network by its name, its id or the beginning of one. Raises NetworkError."""
    for network in world.networks.values():
        if name in {network.spec.name, network.id}:
            return network
    found = [one for one in world.networks.values() if one.id.startswith(name)]
    if len(found) != 1:
        raise NetworkError(f"network {name} not found")
    return found[0]


def make_endpoint(world: World, container: Container, network: Network, wanted: Attachment) -> Endpoint:
    """Give a container's new place in a network, with addresses. Raises NetworkError."""
    now = release(world.settings)
    taken = addresses_in(world, network.id)
    found: dict[int, tuple[Pool, str]] = {}
    for number, asked in ((4, wanted.ip), (6, wanted.ip6)):
        pools = [pool for pool in network.pools if (":" in pool.subnet) == (number == 6)]  # noqa: PLR2004 - IPv6
        if pools:
            found[number] = _address(network, pools, asked, taken, now)
    pool4, address4 = found.get(4, (None, ""))
    pool6, address6 = found.get(6, (None, ""))
    apart = network.spec.internal and now >= NEW_WORDS
    mac = wanted.mac or (mac_of(address4) if address4 and now < NEW_MACS else random_mac(classic=now < NEW_MACS))
    if pool6 and now < NEW_MACS and network.spec.name == "bridge" and not wanted.ip6:
        address6 = _of_mac(pool6, mac) or address6
    return Endpoint(
        network_id=network.id,
        id=secrets.token_hex(32),
        address=address4,
        prefix=ipam.network(pool4.subnet).prefixlen if pool4 else 0,
        gateway=_gateway(pool4) if pool4 and not apart else "",
        address6=address6,
        prefix6=ipam.network(pool6.subnet).prefixlen if pool6 else 0,
        gateway6=_gateway(pool6) if pool6 and not apart else "",
        mac=mac,
        interface=f"eth{_index(container, now)}",
        veth=veth_name(),
        names=names_of(container, wanted, now) if network.spec.name != "bridge" else (),
    )


def _of_mac(pool: Pool, mac: str) -> str:
    """Give the address that ends in a link-layer one, as on docker0 until 27; empty where the subnet leaves no room."""
    subnet = ip_network(pool.range or pool.subnet)
    if subnet.prefixlen > _ROOM:
        return ""
    return str(ip_address(int(subnet.network_address) | int(mac.replace(":", ""), 16)))


def _gateway(pool: Pool) -> str:
    return pool.aux.get("DefaultGatewayIPv6" if ":" in pool.subnet else "DefaultGatewayIPv4") or pool.gateway


def addresses_in(world: World, network_id: str) -> set[str]:
    """Give the addresses of a network that containers have."""
    ends = [end for one in world.containers.values() for end in one.endpoints if end.network_id == network_id]
    return {address for end in ends for address in (end.address, end.address6) if address}


def _address(
    network: Network, pools: list[Pool], asked: str, taken: set[str], now: tuple[int, int, int]
) -> tuple[Pool, str]:
    try:
        if asked:
            return ipam.fixed(pools, asked, {*taken, *(pool.gateway for pool in pools)}), str(ip_interface(asked).ip)
    except AddressError as error:
        if "does not belong" in str(error) and now >= NEW_WORDS:
            raise NetworkError(
                f"invalid config for network {network.spec.name}: invalid endpoint settings:\n"
                f"no configured subnet or ip-range contain the IP address {asked}"
            ) from error
        raise NetworkError(str(error)) from error
    for pool in pools:
        try:
            return pool, ipam.lowest(pool, taken)
        except AddressError:
            continue
    family = "IPv6" if ":" in pools[0].subnet else "IPv4"
    raise NetworkError(
        f"no available {family} addresses on this network's address pools: {network.spec.name} ({network.id})"
    )


def _index(container: Container, now: tuple[int, int, int]) -> int:
    """Number the container's next link: until 27 one that was never used, then the lowest that is free."""
    used = {int(end.interface[3:]) for end in container.endpoints if end.interface}
    if now < NEW_MACS:
        return max(used, default=-1) + 1
    return next(number for number in range(len(used) + 1) if number not in used)


def names_of(container: Container, wanted: Attachment, now: tuple[int, int, int]) -> tuple[str, ...]:
    """Give the names that a network's DNS knows a container by; its host name since 25."""
    host = (hostname(container),) if now >= NEW_WORDS else ()
    return tuple(dict.fromkeys((container.spec.name, *wanted.aliases, short_id(container), *host)))


def unplugged(end: Endpoint) -> Endpoint:
    """Give an endpoint as it is known of a container that does not run."""
    return replace(
        end, id="", address="", prefix=0, gateway="", address6="", prefix6=0, gateway6="", mac="", interface="", veth=""
    )


def gateways(world: World, container: Container) -> tuple[str, ...]:
    """Give the gateways of a container's default routes, at most one a family.

    Chosen as `ways_out` does; until 24 an internal network serves where there is no other.
    """
    ends = [end for end in container.endpoints if end.network_id in world.networks]

    def order(end: Endpoint) -> tuple[bool, int, int, str]:
        return world.networks[end.network_id].spec.internal, *rank(world, container, end)

    four = [end.gateway for end in sorted(ends, key=order) if end.gateway]
    six = [end.gateway6 for end in sorted(ends, key=order) if end.gateway6]
    return (*four[:1], *six[:1])
