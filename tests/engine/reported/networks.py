"""Networks that could not be made, and containers that reached nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.engine.reported.table import Reported
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


def _configured(host: EngineHost, **options: object) -> None:
    text = json.dumps({key.replace("_", "-"): value for key, value in options.items()}, indent=2)
    host.write("/etc/docker/daemon.json", text + "\n")
    host.restart_dockerd()


def _vpn(host: EngineHost) -> None:
    """Have pools of one's own below a route of the VPN: every network overlaps it."""
    _configured(host, bip="192.168.128.1/24", default_address_pools=[{"base": "192.168.128.0/17", "size": 28}])
    host.sh("ip route add 192.168.0.0/16 dev eth0")
    host.run("docker", "network", "create", "rabbit_net", check=False)


def _routed_away(host: EngineHost) -> None:
    """Have every private range on one link: no pool is free, and Compose makes no network."""
    for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        host.sh(f"ip route add {net} dev eth0")
    host.run("docker", "network", "create", "net_basic", check=False)


def _many_networks(host: EngineHost) -> None:
    """Leave networks of old projects behind until no pool is left."""
    host.sh("n=0; while docker network create node${n}_default >/dev/null 2>&1; do n=$((n+1)); done; echo $n")


def _no_iptables_from_the_start(host: EngineHost) -> None:
    """Keep dockerd off the firewall and restart it at once, as a playbook does."""
    host.stop_dockerd()
    host.sh("iptables -F; iptables -t nat -F; iptables -X; iptables -t nat -X; iptables -P FORWARD ACCEPT")
    host.write("/etc/docker/daemon.json", '{\n  "iptables": false\n}\n')
    host.start_dockerd()
    host.docker("run", "-d", "--name", "lonely", "-p", "8085:80", IMAGE, "serve")


def _flushed(host: EngineHost) -> None:
    """Flush the tables as a firewall script does: containers of every bridge reach nothing, host networking does."""
    host.docker("run", "-d", "--name", "nextcloud", "-p", "8085:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "plex", "--network", "host", IMAGE, "idle")
    host.sh("iptables -F; iptables -t nat -F; iptables -X || true; iptables -P FORWARD DROP")


def _loopback_resolver(host: EngineHost) -> None:
    """Give containers the resolver of the host's loopback by daemon.json."""
    _configured(host, dns=["127.0.0.53"])
    host.docker("run", "-d", "--name", "web", IMAGE, "serve")


def _vpn_made_anew(host: EngineHost) -> None:
    """Make a container anew whose network another one shares: that one holds the old id."""
    host.docker("run", "-d", "--name", "vpn", IMAGE, "idle")
    host.docker("run", "-d", "--name", "chromium", "--network", "container:vpn", "--restart", "always", IMAGE, "idle")
    host.docker("rm", "-f", "vpn")
    host.docker("run", "-d", "--name", "vpn", IMAGE, "idle")
    host.run("docker", "restart", "-t", "1", "chromium", check=False)


def _no_resolv_conf(host: EngineHost) -> None:
    """Have a link for resolv.conf that leads nowhere: from 28 on no server is made up for networks of the user."""
    host.sh("rm -f /etc/resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")
    host.docker("run", "-d", "--name", "web", IMAGE, "serve")


REPORTED = (
    Reported(
        "resolver-of-the-loopback",
        "https://github.com/cytopia/devilbox/issues/225",
        _loopback_resolver,
        ("NET043",),
        ("web asks itself for names: 127.0.0.53", "/etc/docker/daemon.json"),
    ),
    Reported(
        "network-of-a-vpn-made-anew",
        "https://github.com/docker/for-linux/issues/1553",
        _vpn_made_anew,
        ("CTR001",),
        ("shares the network of a container that was removed", "--force-recreate"),
    ),
    Reported(
        "no-resolv-conf",
        "https://github.com/moby/moby/issues/49665",
        _no_resolv_conf,
        ("NET042",),
        ("resolv.conf",),
    ),
    Reported(
        "pools-below-the-vpn",
        "https://github.com/docker/for-linux/issues/599",
        _vpn,
        ("NET006",),
        ("192.168.0.0/16", "10.201.0.0/16"),
    ),
    Reported(
        "every-range-routed",
        "https://github.com/moby/moby/issues/36671",
        _routed_away,
        ("NET006",),
        ("172.16.0.0/12", "192.168.0.0/16", "100.80.0.0/16"),
    ),
    Reported(
        "networks-of-old-projects",
        "https://github.com/concourse/concourse/issues/2155",
        _many_networks,
        ("NET006",),
        ("docker network rm node0_default",),
    ),
    Reported(
        "iptables-off-and-empty",
        "https://github.com/moby/moby/issues/13381",
        _no_iptables_from_the_start,
        ("NET062",),
        ("nobody masks the addresses",),
    ),
    Reported(
        "bridges-cut-host-well",
        "https://github.com/docker/cli/issues/2925",
        _flushed,
        ("NET021",),
        (),
    ),
)
