"""Who takes connections and does not answer: what is paused, what a signal has stopped, what has no room for more."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from doctor.facts.sockets import read_listeners
from doctor.linux import sock_diag
from doctor.registry import load
from doctor.snapshot import Record
from doctor.trace import trace
from tests.packets.test_walk import HEALTHY, follow
from tests.why import hosts


def stopped(*pids: int) -> str:
    """Give the healthy host's processes with some of them stopped by a signal, at the end as well."""
    text = HEALTHY.records["proc/processes"].text
    for pid in pids:
        text, count = re.subn(rf"(?m)^({pid}/stat\t.*\) )[A-Z]( )", r"\g<1>T\g<2>", text)
        assert count == 1
    return text


def test_a_paused_container() -> None:
    """TCP opens and hears nothing, of UDP nothing comes back, a ping is answered: that the kernel does by itself."""
    paused = hosts.inspected(hosts.healthy(), "web1", State={"Status": "paused", "Paused": True})
    for source, target in (("outside", "host:8080"), ("host", "localhost:8080"), ("cron", "web1:80")):
        found, code = trace(paused, load(plugins=False), source, target)
        assert (found.works, found.client_sees, found.code, code) == (False, "connected", "DST_FROZEN", 1)
        assert found.why == "web1 is paused: the kernel opens connections for it, and nobody answers"
        assert found.remedy is not None
    assert trace(paused, load(plugins=False), "cron", "web1")[0].works
    assert trace(paused, load(plugins=False), "web1", "cron")[0].works
    assert trace(paused, load(plugins=False), "cron", "web1:81")[0].code == "DST_NO_LISTENER"


def test_datagrams_to_a_paused_container() -> None:
    """They wait in its socket, until somebody lets it go on."""
    paused = hosts.inspected(hosts.healthy(), "web1", State={"Status": "paused", "Paused": True})
    inode = next(
        name
        for name, held in paused.records.items()
        if name.endswith("/links") and "172.17.0.2" in held.text and "/host/" not in name
    )[:-5]
    heard = paused.records[f"{inode}listeners"].text + "udp UNCONN 0 0 0.0.0.0:53 0.0.0.0:*\n"
    found, _ = trace(hosts.given(paused, f"{inode}listeners", heard), load(plugins=False), "cron", "web1:53/udp")
    assert (found.works, found.client_sees, found.code) == (False, "timeout", "DST_FROZEN")
    # The embedded DNS is in the namespace of the container, and a part of dockerd.
    stays = hosts.inspected(hosts.healthy(), "api", State={"Status": "paused", "Paused": True})
    assert trace(stays, load(plugins=False), "api", "127.0.0.11:53/udp")[0].works


@pytest.mark.parametrize(
    ("names", "source", "target", "silent"),
    [
        (("web",), "outside", "host:8080", True),
        (("web",), "host", "localhost:8080", True),
        (("docker-proxy",), "host", "localhost:8080", True),
        (("docker-proxy",), "outside", "host:8080", False),
        (("db",), "outside", "host:8080", False),
    ],
)
def test_what_a_signal_has_stopped(names: tuple[str, ...], source: str, target: str, silent: bool) -> None:  # noqa: FBT001
    """Whoever stands on the way to the answer makes it silent, and nobody else."""
    text = HEALTHY.records["proc/processes"].text
    pids = {
        "web": [int(pid) for pid in re.findall(r"(?m)^(\d+)/cgroup\t.*a1a1a1a1", text)],
        "db": [int(pid) for pid in re.findall(r"(?m)^(\d+)/cgroup\t.*a3a3a3a3", text)],
        "docker-proxy": [int(pid) for pid in re.findall(r"(?m)^(\d+)/stat\t.*\(docker-proxy\)", text)],
    }
    held = [pid for name in names for pid in pids[name]]
    assert held
    record = replace(HEALTHY.records["proc/processes"], data=stopped(*held).encode())
    records = {name: one for name, one in HEALTHY.records.items() if name != "proc/last"}
    found = follow(source, target, replace(HEALTHY, records=records | {"proc/processes": record}))
    assert (found.code == "DST_FROZEN") is silent
    assert found.client_sees == "connected"


def test_no_room_for_more() -> None:
    """Linux drops a SYN where more wait to be accepted than there is room for: what sock_diag says then, and the walk of it."""
    with ExitStack() as stack:
        made = stack.enter_context(socket.socket())
        made.bind(("127.0.0.1", 0))
        made.listen(0)
        place = made.getsockname()
        first = stack.enter_context(socket.socket())
        first.connect(place)
        late = stack.enter_context(socket.socket())
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.connect(place)
        lines = [line for line in sock_diag.listeners(5).decode().splitlines() if f"127.0.0.1:{place[1]} " in line]
    heard = read_listeners(Record("netns/host/listeners", "netns", "", data="\n".join(lines).encode()), "")
    assert [one.full for one in heard] == [True]
    name = next(
        name
        for name, held in HEALTHY.records.items()
        if name.endswith("/links") and "172.17.0.2" in held.text and "/host/" not in name
    )[:-5]
    full = "tcp LISTEN 129 128 *:80 *:* ino:9 v6only:0\n"
    for more, code in (("", "DST_BACKLOG_FULL"), ("tcp LISTEN 0 128 *:80 *:* ino:10 v6only:0\n", "")):
        record = replace(HEALTHY.records[f"{name}listeners"], data=(full + more).encode())
        found = follow("outside", "host:8080", replace(HEALTHY, records=HEALTHY.records | {record.name: record}))
        assert (found.code, found.client_sees) == (code, "timeout" if code else "connected")
