"""Packets of full size: what `doctor trace` says of an upload is what becomes of it, link by link and rule by rule."""

from __future__ import annotations

import json

from tests.engine.faults.addresses import uploads
from tests.engine.faults.table import OUTSIDE_PORT, populate
from tests.enginehost import OUTSIDE_IP, SUITES, EngineHost

_TOLD = "iptables {} OUTPUT -p icmp -m icmp --icmp-type 3 -j DROP"
_CLAMP = "iptables -t mangle -A FORWARD {} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"

STATES = (
    ("as it is", ""),
    ("a narrow uplink", "ip link set eth0 mtu 1400"),
    ("whose error is dropped", _TOLD.format("-A")),
    ("a clamp of what goes out", _CLAMP.format("-o eth0")),
    ("a clamp of both", _CLAMP.format("")),
    ("no clamp, a route that takes less", f"iptables -t mangle -F; ip route replace {OUTSIDE_IP} dev eth0 mtu 1300"),
    ("and an error that comes back", _TOLD.format("-D")),
)
"""What is done to the host, one after the other."""


def said(host: EngineHost) -> bool:
    """Ask doctor of the upload: whether it would arrive."""
    found = json.loads(host.doctor("trace", "db", f"{OUTSIDE_IP}:{OUTSIDE_PORT}", "--format", "json").stdout)
    assert found["client_sees"] == "connected"
    assert found["code"] == ("" if found["works"] else "MTU_DF")
    return bool(found["works"])


def test_uploads_end_as_they_are_traced() -> None:
    """Seven states of one host, of which three lose what is large; the newest engine, since it is the kernel's doing."""
    with EngineHost.up(suite=next(reversed(SUITES))) as host:
        populate(host)
        lost = []
        for state, command in STATES:
            if command:
                host.sh(command)
            # What a sender was told it remembers for ten minutes, and no snapshot has it.
            host.sh(f"nsenter -t {host.container_pid('db')} -n ip route flush cache")
            arrives = uploads(host, ("db",))["db"]
            assert said(host) == arrives, state
            if not arrives:
                lost.append(state)
        assert len(lost) == 3, lost
