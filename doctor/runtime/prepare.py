"""What a start of dockerd turns on in the kernel, and what its options make of docker0.

Source: moby `daemon/daemon_unix.go`, `libnetwork/drivers/bridge/setup_ip_forwarding.go` and `setup_bridgenetfiltering.go`
(29: below `daemon/`); compared with live 20.10.24, 26.1.5 and 28.5.2.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.runtime import bridge, firewall
from doctor.runtime.allocation import NetworkError, default_spec, make_network, release
from doctor.runtime.bridge import OPTION
from doctor.runtime.firewall import on

if TYPE_CHECKING:
    from doctor.engine.rules import Family
    from doctor.runtime.model import Network, World

NOT_FORWARDED = (
    "IPv4 forwarding is disabled: check your host's firewalling and set sysctl net.ipv4.ip_forward=1, "
    "or disable this check using daemon option --ip-forward=false"
)
"""With nftables the engine turns nothing on, and refuses to start (29)."""


def forward(world: World) -> list[Family]:
    """Turn forwarding on; gives the families whose FORWARD the engine closes because it was off. Raises NetworkError."""
    values = world.settings.values
    if not on(values, "ip-forward", default=True):
        return []
    if firewall.is_native(world):
        if bridge.sysctl_value("ipv4/ip_forward") == "0":
            raise NetworkError(NOT_FORWARDED)
        return []
    drops: list[Family] = []
    quiet = on(values, "ip-forward-no-drop", default=False)
    if bridge.sysctl_value("ipv4/ip_forward") == "0" and bridge.sysctl("ipv4/ip_forward", "1"):
        drops += ["ip"]
    if _wants_ipv6(world) and bridge.sysctl_value("ipv6/conf/all/forwarding") == "0":
        bridge.sysctl("ipv6/conf/default/forwarding", "1")
        if bridge.sysctl("ipv6/conf/all/forwarding", "1"):
            drops += ["ip6"]
    return [] if quiet else drops


def _wants_ipv6(world: World) -> bool:
    """Whether forwarding of IPv6 is turned on: at the start when docker0 has it, else with the first such network."""
    return bool(world.settings.values.get("ipv6")) or any(one.spec.ipv6 for one in world.networks.values())


def default_network(world: World, identity: str, created: str) -> None:
    """Put the network `bridge` first, as the daemon's options make it now; it keeps its id. Raises NetworkError."""
    known = next((one for one in world.networks.values() if one.spec.name == "bridge"), None)
    address = bridge.address_of(str(world.settings.values.get("bridge") or "docker0"))
    spec = default_spec(world.settings, address)
    if known is not None:
        del world.networks[known.id]
    if spec is None:
        return
    made = make_network(
        world, spec, identity or (known.id if known else os.urandom(32).hex()), created, bridge.routes()
    )
    if known is not None and not created:
        made = replace(made, created=known.created)
    others = dict(world.networks)
    world.networks.clear()
    world.networks[made.id] = made
    world.networks.update(others)


def readdress(world: World) -> None:
    """Give docker0 the address that `bip` says, where it has another from before. Raises OSError."""
    if not world.settings.values.get("bip"):
        return
    for one in world.networks.values():
        held = bridge.address_of(one.bridge)
        if one.spec.name == "bridge" and held and held != bridge.addresses(one)[0]:
            bridge.readdress(one.bridge, held, bridge.addresses(one)[0])


def bridge_sysctls(world: World, network: Network) -> None:
    """Set what a network's bridge needs: ports without a proxy, neighbours that are kept apart. Raises OSError."""
    values = world.settings.values
    hairpin = not on(values, "userland-proxy", default=True)
    if hairpin:
        bridge.sysctl(f"ipv4/conf/{network.bridge}/route_localnet", "1")
    closed = not on(network.spec.options, OPTION + "enable_icc", default=True)
    # Bridged packets must meet the rules where those keep neighbours apart; since 27.4 also for ports without proxy.
    if (closed or (hairpin and release(world.settings) >= (27, 4, 0))) and on(values, "iptables", default=True):
        bridge.sysctl("bridge/bridge-nf-call-iptables", "1")
        if network.spec.ipv6:
            bridge.sysctl("bridge/bridge-nf-call-ip6tables", "1")
