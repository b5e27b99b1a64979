"""Faults that keep dockerd from starting: its pid file, its socket, its data root, values that have no code of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.daemon_options import refused, write
from tests.engine.faults.table import Fault, answers

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

SOCKET = "/run/docker.sock"


# Probes


def stranger(host: EngineHost) -> object:
    """What a user without any right is told on the socket."""
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' --unix-socket {SOCKET} http://docker/_ping"
    return host.sh(f"setpriv --reuid 65534 --regid 65534 --clear-groups {ask} || true")


# What breaks


def _pid_of_another(host: EngineHost) -> None:
    host.stop_dockerd()
    host.sh("sleep 600 >/dev/null 2>&1 & echo $! >/run/docker.pid")
    host.start_dockerd(expect_failure=True)


def _directory_for_socket(host: EngineHost) -> None:
    host.stop_dockerd()
    host.sh(f"rm -f {SOCKET}; mkdir {SOCKET}")
    host.start_dockerd(expect_failure=True)


def _no_shop(host: EngineHost) -> None:
    """Remove what only the old data root, or database, knows: its bridge would be left over."""
    host.docker("rm", "-f", "api", "db")
    host.docker("network", "rm", "shop")


def _file_for_data_root(host: EngineHost) -> None:
    _no_shop(host)
    host.sh("touch /var/lib/docker/other")
    refused(host, data_root="/var/lib/docker/other")


def _same_bridge(host: EngineHost) -> None:
    """Leave a network on docker0 in the database, as a power cut does; nothing of one's own is to be lost here."""
    _no_shop(host)
    host.stop_dockerd()
    write(host, bridge="none")
    host.start_dockerd()
    host.sh("ip link del docker0", check=False)
    host.docker("network", "create", "-o", "com.docker.network.bridge.name=docker0", "--subnet", "10.9.0.0/24", "x")
    host.stop_dockerd()
    host.sh("ip link del docker0")
    write(host, bip="172.17.0.1/16")
    host.start_dockerd(expect_failure=True)


_TOO_SMALL = {"default-address-pools": [{"base": "10.0.0.0/8", "size": 4}]}
"""A pool of networks that are larger than the pool."""


def _damaged(host: EngineHost) -> None:
    """Let the database of networks be what a full disk or a power cut makes of it; nothing of one's own is lost here."""
    _no_shop(host)
    host.stop_dockerd()
    host.sh("head -c 5000 /dev/zero >/var/lib/docker/network/files/local-kv.db")
    host.start_dockerd(expect_failure=True)


def _no_activation(host: EngineHost) -> None:
    host.stop_dockerd()
    host.start_dockerd("-H", "fd://", expect_failure=True)


FAULTS = (
    Fault("DMN017", "everybody", lambda h: h.sh(f"chmod 666 {SOCKET}"), stranger),
    Fault("DMN017", "directory", _directory_for_socket, answers, ("DMN016",)),
    Fault("DMN018", "pid-of-another", _pid_of_another, answers, ("DMN016",)),
    Fault("DMN019", "a-file", _file_for_data_root, answers, ("DMN016",)),
    Fault("DMN032", "label", lambda h: refused(h, labels=["owner"]), answers, ("DMN016",)),
    Fault("DMN032", "group", lambda h: refused(h, group="nosuch"), answers, ("DMN016",)),
    Fault("DMN032", "pool", lambda h: refused(h, **_TOO_SMALL), answers, ("DMN016",)),
    Fault("DMN036", "same-bridge", _same_bridge, answers, ("DMN016",)),
    Fault("DMN036", "damaged", _damaged, answers, ("DMN016",)),
    Fault("DMN042", "init-script", _no_activation, answers, ("DMN016",)),
)
