"""Daemons that an upgrade or an option of a guide keeps down, and containers that do not start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.engine.reported.table import Reported
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


def _refused(host: EngineHost, **options: object) -> None:
    host.stop_dockerd()
    named = {key.replace("_", "-"): value for key, value in options.items()}
    host.write("/etc/docker/daemon.json", json.dumps(named, indent=2) + "\n")
    host.start_dockerd(expect_failure=True)


def _live_restore_in_a_swarm(host: EngineHost) -> None:
    """Switch live-restore on, forget it, and restart months later."""
    host.docker("swarm", "init", "--advertise-addr", "198.51.100.2")
    _refused(host, live_restore=True)


def _no_iptables(host: EngineHost) -> None:
    """Install the engine from its archive, on a system without iptables."""
    host.stop_dockerd()
    host.sh("for p in iptables ip6tables; do mv $(command -v $p) /root/; done")
    host.start_dockerd(expect_failure=True)


def _internal_beside_firewalld(host: EngineHost) -> None:
    """Have a firewalld that knows docker0, and an internal network that it was not told of."""
    host.docker("network", "create", "--internal", "test")
    host.docker("run", "-d", "--name", "nginx", "--network", "test", IMAGE, "serve")
    host.docker("run", "-d", "--name", "curl", "--network", "test", IMAGE, "idle")
    host.sh("sysctl -w net.bridge.bridge-nf-call-iptables=1")
    host.run(
        "nft",
        "-f",
        "-",
        stdin="""
        table inet firewalld {
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                iifname "docker0" accept
                oifname "docker0" accept
                reject with icmpx admin-prohibited
            }
        }
        """,
    )


def _relative_device(host: EngineHost) -> None:
    """Give Compose ./db as the device of a volume."""
    options = ("--opt", "type=none", "--opt", "o=bind", "--opt", "device=./db")
    host.docker("volume", "create", *options, "pgdb_data")
    host.run("docker", "run", "-d", "--name", "db", "-v", "pgdb_data:/data", IMAGE, "idle", check=False)


REPORTED = (
    Reported(
        "live-restore-in-a-swarm",
        "https://github.com/docker/docs/issues/16059",
        _live_restore_in_a_swarm,
        ("DMN032",),
        ("live-restore cannot be on where this host is in a swarm", '- "live-restore"'),
    ),
    Reported(
        "option-of-an-old-kernel",
        "https://github.com/lework/kainstall/issues/55",
        lambda h: _refused(h, storage_driver="overlay2", storage_opts=["overlay2.override_kernel_check=true"]),
        ("DMN032",),
        ("storage-opts has an option that this release does not know", '- "storage-opts"'),
        engines=("trixie", "sid"),
    ),
    Reported(
        "ipv6-without-a-subnet",
        "https://github.com/docker/for-linux/issues/829",
        lambda h: _refused(h, ipv6=True),
        ("DMN032",),
        ("docker0 has no subnet of it", "fixed-cidr-v6"),
        engines=("bookworm",),  # from 27 on it takes one by itself
    ),
    Reported(
        "no-iptables",
        "https://github.com/dyrnq/install-docker/issues/10",
        _no_iptables,
        ("DMN032",),
        ("it finds no iptables that it may run", "apt-get install iptables"),
    ),
    Reported(
        "internal-network-beside-firewalld",
        "https://github.com/firewalld/firewalld/issues/887",
        _internal_beside_firewalld,
        ("NET033",),
        ("containers of network test would not reach each other",),
    ),
    Reported(
        "relative-device-of-a-volume",
        "https://github.com/docker/compose/issues/9971",
        _relative_device,
        ("VOL002",),
        ("volume pgdb_data binds ./db, which is no absolute path",),
    ),
)
