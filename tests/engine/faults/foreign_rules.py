"""Faults of rules that are not Docker's: DOCKER-USER, firewalls beside it, the other back end, iptables switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.rules import clients
from tests.engine.faults.table import OUTSIDE_PORT, Fault, flows
from tests.enginehost import OUTSIDE_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

NEW = ("sid",)
OLD = ("bookworm", "trixie")
BARE = ("--iptables=false",)
NEW_ONLY = "-m conntrack --ctstate NEW"
CLOSED = "-i eth0 -p tcp --dport 80 -j DROP"
"""Keeps strangers from what is published for port 80 of a container."""


def _iptables(*rules: str) -> Callable[[EngineHost], object]:
    """Give what runs these."""
    return lambda host: [host.sh(f"iptables {rule}") for rule in rules]


def _nft(text: str) -> Callable[[EngineHost], object]:
    """Give what loads these tables."""
    return lambda host: host.run("nft", "-f", "-", stdin=text)


_SKIPS = _iptables("-t nat -I POSTROUTING -o eth0 -j ACCEPT")


def outward(host: EngineHost) -> object:
    """What containers of both networks reach outside."""
    wanted = [("cron", OUTSIDE_IP, OUTSIDE_PORT), ("db", OUTSIDE_IP, OUTSIDE_PORT)]
    with host.listen("outside", OUTSIDE_PORT):
        return {flow[0]: result for flow, result in host.probe(wanted).items()}


def _masked_by_hand(host: EngineHost) -> None:
    """Do what dockerd does not with iptables switched off."""
    for subnet, bridge in (("172.17.0.0/16", "docker0"), ("10.7.0.0/24", "br-+")):
        host.sh(f"iptables -t nat -A POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE")


FAULTS = (
    Fault("NET067", "from-outside", _iptables("-I DOCKER-USER -i eth0 -j DROP"), outward),
    Fault("NET067", "allow-list", _iptables("-I DOCKER-USER -i eth0 ! -s 10.0.0.0/8 -j REJECT"), outward),
    Fault("NET029", "everything", _iptables("-I DOCKER-USER -j DROP"), flows),
    Fault(
        "NET029",
        "ways-out",
        _iptables(f"-I DOCKER-USER ! -i eth0 -o eth0 {NEW_ONLY} -j REJECT"),
        flows,
        level="warning",
    ),
    Fault("NET029", "one-network", _iptables("-I DOCKER-USER -i docker0 -o eth0 -j DROP"), flows, level="info"),
    Fault(
        "NET051",
        "policy",
        _nft("table inet filter { chain forward { type filter hook forward priority filter; policy drop; }; }"),
        flows,
    ),
    Fault(
        "NET051",
        "rule",
        _nft(
            'table ip fw { chain f { type filter hook forward priority 10; ct state new iifname "docker0" goto no; };'
            " chain no { reject; }; }"
        ),
        flows,
    ),
    Fault(
        "NET051",
        "one-way-out",
        _nft(
            'table ip fw { chain f { type filter hook forward priority 10; iifname "docker0" oifname "eth0" drop; }; }'
        ),
        flows,
        level="warning",
    ),
    Fault("NET028", "forward", _iptables("-I FORWARD -o eth0 -j REJECT --reject-with icmp-host-prohibited"), flows),
    Fault("NET028", "mangle", _iptables("-t mangle -A FORWARD -o eth0 -j DROP"), flows),
    Fault("NET028", "in-docker", _iptables("-I DOCKER -d 10.7.0.0/24 -j DROP"), flows),
    Fault("NET028", "skips-masquerade", _SKIPS, flows, engines=NEW),
    Fault("NET028", "skips-masquerade-and-may-come-back", _SKIPS, flows, level="warning", engines=OLD),
    Fault(
        "NET028",
        "skips-dnat",
        _iptables("-t nat -I PREROUTING -p tcp --dport 8080 -j ACCEPT"),
        clients,
        level="warning",
    ),
    Fault("NET031", "policy", lambda h: h.sh("iptables-legacy -P FORWARD DROP"), flows),
    Fault("NET031", "rule", lambda h: h.sh("iptables-legacy -A FORWARD -i docker0 -j DROP"), flows),
    Fault("NET035", "no-rules", _iptables("-P FORWARD DROP"), flows, daemon_args=BARE, setup=_masked_by_hand),
    Fault(
        "NET062",
        "unmasked",
        _iptables("-t nat -F POSTROUTING"),
        flows,
        daemon_args=BARE,
        setup=_masked_by_hand,
        level="warning",
    ),
    Fault(
        "NET053",
        "appended",
        _iptables(f"-D DOCKER-USER {CLOSED}", f"-A DOCKER-USER {CLOSED}"),
        flows,
        engines=OLD,
        setup=_iptables(f"-I DOCKER-USER {CLOSED}"),
        level="warning",
    ),
    Fault(
        "NET053",
        "behind-a-return",
        _iptables("-I DOCKER-USER -j RETURN"),
        flows,
        engines=NEW,
        setup=_iptables(f"-A DOCKER-USER {CLOSED}"),
        level="warning",
    ),
    Fault(
        "NET053",
        "port-of-the-host",
        _iptables("-R DOCKER-USER 1 -i eth0 -p tcp -m tcp --dport 8080 -j DROP"),
        flows,
        setup=_iptables("-I DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP"),
        level="warning",
    ),
)
