"""Make the broken hosts that ship with doctor: break a live engine, collect, put the bundle into `doctor/examples/`.

Needs root; run as `python -m tools.make_examples [NAME...]`. A bundle is committed: it changes only when somebody runs this.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.examples import HOSTS
from tests.enginehost import IMAGE, EngineHost

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).resolve().parent.parent / "doctor" / "examples"


def _shop(host: EngineHost) -> None:
    """Start what a small shop runs: two networks, five containers, three published ports."""
    host.docker("run", "-d", "--name", "web1", "-p", "8080:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "cron", IMAGE, "idle")
    host.docker("network", "create", "--subnet", "10.7.0.0/24", "shop")
    host.docker("run", "-d", "--name", "api", "--network", "shop", "-p", "8081:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "db", "--network", "shop", "-p", "127.0.0.1:5432:5432", IMAGE, "echod", "5432")
    host.docker("run", "-d", "--name", "mail", "--network", "shop", "-p", "2525:25", IMAGE, "echod", "25")


def _forwarding_off(host: EngineHost) -> None:
    _shop(host)
    host.write("/etc/sysctl.d/99-cis.conf", "# hardening\n\nnet.ipv4.ip_forward = 0\n")
    host.sh("sysctl -qw net.ipv4.ip_forward=0")


def _rules_flushed(host: EngineHost) -> None:
    _shop(host)
    layer = host.sh("cat /var/lib/docker/image/overlay2/layerdb/sha256/*/cache-id").strip()
    link = host.read(f"/var/lib/docker/overlay2/{layer}/link").strip()
    host.sh(f"rm /var/lib/docker/overlay2/l/{link}")
    table = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n"
    host.write("/etc/nftables.conf", f"#!/usr/sbin/nft -f\n\nflush ruleset\n\n{table}")
    host.sh("nft -f /etc/nftables.conf")
    host.run("docker", "run", "-d", "--name", "late", "-p", "8090:80", IMAGE, "serve", check=False)


def _daemon_stopped(host: EngineHost) -> None:
    _shop(host)
    host.sh(f"kill -STOP {host.dockerd_pid()}")


EXAMPLES: dict[str, tuple[str, Callable[[EngineHost], None]]] = {
    "forwarding-off": ("sid", _forwarding_off),
    "rules-flushed": ("trixie", _rules_flushed),
    "daemon-stopped": ("sid", _daemon_stopped),
}


def main() -> None:
    """Make the examples named, or all."""
    assert EXAMPLES.keys() == HOSTS.keys()  # noqa: S101 - a developer's script
    for name in sys.argv[1:] or EXAMPLES:
        suite, break_it = EXAMPLES[name]
        with EngineHost.up(name=name, suite=suite) as host:
            break_it(host)
            host.run("doctor", "collect", "-o", "/root/example.tar.gz", check=False)
            with os.fdopen(host._open("/root/example.tar.gz", os.O_RDONLY), "rb") as bundle:  # noqa: SLF001 - bytes
                (FOLDER / f"{name}.tar.gz").write_bytes(bundle.read())
        print(f"{name}: {(FOLDER / f'{name}.tar.gz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
