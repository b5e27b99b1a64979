"""Faults of rules that are not Docker's: DOCKER-USER, firewalls beside it, the other back end, iptables switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.rules import clients
from tests.engine.faults.table import OUTSIDE_PORT, Fault, flows
from tests.enginehost import IMAGE, OUTSIDE_IP

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


_UFW = """
*filter
:ufw-before-forward - [0:0]
:ufw-reject-forward - [0:0]
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable
-I FORWARD 1 -j ufw-before-forward
-I FORWARD 2 -j ufw-reject-forward
COMMIT
"""
"""What ufw loads with the policy reject, as far as it concerns what is forwarded; before Docker's."""


def _ufw(host: EngineHost) -> None:
    host.write("/etc/ufw/ufw.conf", "ENABLED=yes\nLOGLEVEL=low\n")
    host.write("/etc/default/ufw", 'IPV6=yes\nDEFAULT_FORWARD_POLICY="REJECT"\n')
    host.run("iptables-restore", "--noflush", stdin=_UFW)


_FIREWALLD = """
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_FORWARD_POLICIES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_POLICIES {
    iifname "eth0" oifname "eth0" jump filter_FWD_public
    iifname "eth0" jump filter_FWD_public
  }
  chain filter_FWD_public {
    oifname "eth0" accept
  }
}
"""
"""The table of a firewalld whose zone docker is gone: it knows of eth0 alone."""

_VENDOR = (
    "-N UG_FORWARD",
    "-A UG_FORWARD -i lo -j ACCEPT",
    "-A UG_FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A UG_FORWARD -s 192.0.2.0/24 -j RETURN",
    "-A UG_FORWARD -j DROP",
    "-I DOCKER-USER -j UG_FORWARD",
)
_STALE = "-d {} ! -i br-8b52009aaf0d -j DROP"
"""A rule that Docker wrote for a container of a network that is gone."""


def _saved(host: EngineHost) -> None:
    """What netfilter-persistent saved while another network was there."""
    rule = f"-A PREROUTING {_STALE.format('172.17.0.2/32')}"
    host.write("/etc/iptables/rules.v4", f"*raw\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n")


def after_boot(host: EngineHost) -> object:
    """What neighbours reach once the saved rules were loaded, as at a boot; they are taken away again."""
    rule = f"-t raw -{{}} PREROUTING {_STALE.format('172.17.0.2/32')}"
    loaded = host.run("sh", "-c", "grep -v ^# /etc/iptables/rules.v4 | iptables-restore --noflush", check=False)
    try:
        return flows(host)
    finally:
        if not loaded.returncode:
            host.run("sh", "-c", f"iptables {rule.format('D')}", check=False)


def _masked_by_hand(host: EngineHost) -> None:
    """Do what dockerd does not with iptables switched off."""
    for subnet, bridge in (("172.17.0.0/16", "docker0"), ("10.7.0.0/24", "br-+")):
        host.sh(f"iptables -t nat -A POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE")


def own_port(host: EngineHost) -> None:
    """Publish a port for this host alone."""
    host.docker("run", "-d", "--name", "own", "-p", "127.0.0.1:8085:80", IMAGE, "serve")
    host.await_listening("own", 80)


def itself(host: EngineHost) -> object:
    """Whether this host reaches its own port."""
    return host.probe([("host", "127.0.0.1", 8085)])


_CLOSED_HOST = """
table inet closed {
  chain in { type filter hook input priority 5; policy drop; iifname "eth0" accept; }
}
"""
"""A firewall that forgot lo."""

FAULTS = (
    Fault("NET028", "a-port-of-this-host", _iptables("-I INPUT -p tcp --dport 8085 -j DROP"), itself, setup=own_port),
    Fault(
        "NET028", "policy-of-input", _iptables("-P INPUT DROP", "-A INPUT -i eth0 -j ACCEPT"), itself, setup=own_port
    ),
    Fault("NET051", "a-port-of-this-host", _nft(_CLOSED_HOST), itself, setup=own_port),
    Fault(
        "NET036",
        "docker0",
        lambda host: host.sh("sysctl -qw net.ipv4.conf.docker0.route_localnet=0"),
        itself,
        daemon_args=("--userland-proxy=false",),
        setup=own_port,
    ),
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
        "bridge-family",
        _nft("table bridge f { chain fw { type filter hook forward priority 0; policy drop; }; }"),
        flows,
        heal=lambda host: host.sh("nft delete table bridge f"),
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
    Fault(
        "NET028", "redirect", _iptables("-t nat -I PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9999"), flows
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
    Fault(
        "NET028",
        "requests-to-one-port",
        _iptables("-t mangle -A POSTROUTING -o docker0 -p tcp --dport 80 -j DROP"),
        flows,
    ),
    Fault("NET033", "ufw-before-docker", _ufw, flows),
    Fault("NET033", "firewalld-without-zone", _nft(_FIREWALLD), flows),
    Fault("NET052", "bridged", _iptables(f"-t raw -I PREROUTING {_STALE.format('172.17.0.2/32')}"), flows),
    Fault("NET052", "forwarded", _iptables(f"-I FORWARD {_STALE.format('10.7.0.2/32')}"), flows),
    Fault("NET052", "saved-for-boot", _saved, after_boot, level="warning"),
    Fault("NET066", "in-docker-user", _iptables(*_VENDOR), outward),
    Fault(
        "NET066",
        "before-docker",
        _iptables(
            "-N FORWARD_FIREWALL",
            "-N SYNO_DROP",
            "-A SYNO_DROP -j DROP",
            "-A FORWARD_FIREWALL -o docker0 ! -s 172.17.0.0/16 -j SYNO_DROP",
            "-I FORWARD -j FORWARD_FIREWALL",
        ),
        outward,
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
