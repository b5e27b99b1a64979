"""Who is asked with --probe: only what a resolv.conf names, from where it is asked, and no more than the cap."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.asking import LOOPBACK, MANY, questions
from doctor.host import LocalHost
from doctor.linux import spawn
from doctor.linux.ask import Question
from doctor.snapshot import Record
from tests.cases import casefile

A = "a" * 64


@pytest.mark.parametrize(
    ("base", "behind"),
    [("healthy-20", "space"), ("healthy-26", "space"), ("healthy-28", "host")],
)
def test_healthy_host(base: str, behind: str) -> None:
    """The host's server from the host and from web; dockerd from api and db, for their own addresses; who is behind it."""
    records = dict(casefile.base(base).records)
    records["api/ping"] = Record("api/ping", "api", "/_ping", data=b"OK")
    found, more = questions(records, ("dockerd",))
    assert more == 0
    spaces = {"4026532500": "host", "4026532511": "web", "4026532522": "api", "4026532533": "db"}
    said = {(spaces[one.inode], one.server, one.name) for one in found}
    own = {("api", "127.0.0.11", "2.0.7.10.in-addr.arpa"), ("db", "127.0.0.11", "3.0.7.10.in-addr.arpa")}
    plain = {("host", "198.51.100.1", LOOPBACK), ("web", "198.51.100.1", LOOPBACK)}
    if behind == "space":
        plain |= {("api", "198.51.100.1", LOOPBACK), ("db", "198.51.100.1", LOOPBACK)}
    assert said == own | plain
    assert len(found) == len(said)


def host(servers: str, inspect: str = "", **more: str) -> dict[str, Record]:
    """A host with one container, `A`, in namespace 7."""
    texts: dict[str, str] = {
        "files/etc/resolv.conf": "nameserver 192.0.2.1\n",
        "netns/index": "1\tn\t0.000\thost\n7\tn\t0.000\t50\n",
        "proc/processes": "50/ns/net\tl\t0.000\tnet:[7]\n",
        "api/ping": "OK",
        f"api/inspect/{A}": inspect
        or '{"State":{"Pid":50},"Mounts":[],"NetworkSettings":{"Networks":{"n":{"NetworkID":"n1","IPAddress":"10.0.0.2"}}}}',
        f"store/containers/{A}/resolv.conf": servers,
        "api/networks": '[{"Id":"n1"}]',
    }
    return {name: Record(name, "file", name, data=text.encode()) for name, text in (texts | more).items()}


def asked(records: dict[str, Record], *argv: str) -> list[tuple[str, str]]:
    """Namespace and server of what is asked of containers."""
    return [
        (one.inode, one.server) for one in questions(records, argv)[0] if one.server != "192.0.2.1" or one.inode != "1"
    ]


@pytest.mark.parametrize(
    ("servers", "change", "wanted"),
    [
        ("nameserver 192.0.2.9\n", {}, [("7", "192.0.2.9")]),
        ("nameserver nonsense\nnameserver fe80::1%eth0\n", {}, [("7", "fe80::1%eth0")]),
        ("nameserver 127.0.0.11\n", {}, [("7", "127.0.0.11"), ("7", "192.0.2.1")]),
        (
            "nameserver 127.0.0.11\n# ExtServers: [host(127.0.0.53) 192.0.2.3]\n",
            {},
            [("7", "127.0.0.11"), ("1", "127.0.0.53"), ("7", "192.0.2.3")],
        ),
        ("nameserver 127.0.0.11\n# ExtServers: [nonsense(]\n", {}, [("7", "127.0.0.11")]),
        ("nameserver 127.0.0.11\n", {"api/networks": '[{"Id":"n1","Internal":true}]'}, [("7", "127.0.0.11")]),
        ("nameserver 127.0.0.11\n", {"engine/daemon.json": '{"dns": ["192.0.2.7"]}'}, [("7", "127.0.0.11")]),
        ("nameserver 192.0.2.9\n", {"netns/index": "7\tn\t0.000\thost\n"}, [("7", "192.0.2.1")]),
        (
            "nameserver 127.0.0.11\n",
            {
                "files/etc/resolv.conf": "nameserver 127.0.0.53\n",
                "files/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.5\n",
            },
            [("1", "127.0.0.53"), ("1", "192.0.2.5"), ("7", "127.0.0.11"), ("7", "192.0.2.5")],
        ),
        ("nameserver 192.0.2.9\n", {f"api/inspect/{A}": "no json"}, []),
        ("nameserver 192.0.2.9\n", {f"api/inspect/{A}": '{"State":{"Pid":50},"NetworkSettings":{"Networks":{}}}'}, []),
    ],
)
def test_what_a_container_asks(servers: str, change: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    """Its own servers from its namespace; those behind dockerd from where dockerd asks; none where nobody is asked."""
    assert asked(host(servers, **change)) == wanted


def test_file_of_its_own_is_not_asked() -> None:
    """A resolv.conf that is mounted is not the one that the engine wrote."""
    ends = '{"Networks":{"n":{"IPAddress":"10.0.0.2"}}}'
    mounts = '[{"Destination":"/etc/resolv.conf"}]'
    held = f'{{"State":{{"Pid":50}},"Mounts":{mounts},"NetworkSettings":{ends}}}'
    assert asked(host("nameserver 192.0.2.9\n", held)) == []


def test_daemon_that_is_down_is_not_asked() -> None:
    """Nobody would answer at 127.0.0.11: that is known."""
    records = host("nameserver 127.0.0.11\n")
    del records["api/ping"]
    assert asked(records) == []


def test_no_more_than_the_cap() -> None:
    """What is beyond it is counted."""
    servers = "".join(f"nameserver 192.0.2.{number}\n" for number in range(100))
    found, more = questions(host(servers), ())
    assert (len(found), more) == (MANY, 101 - MANY)


def test_each_network_before_each_container() -> None:
    """A hundred containers of one network do not keep that of another from being asked."""
    records = host("")
    ends = '{{"Networks":{{"n":{{"NetworkID":"{net}","IPAddress":"10.0.0.2"}}}}}}'
    inspect = '{{"State":{{"Pid":{pid}}},"NetworkSettings":' + ends + "}}"
    pids = range(1000, 1101)
    texts = {
        "netns/index": "1\tn\t0.000\thost\n" + "".join(f"{pid + 9000}\tn\t0.000\t{pid}\n" for pid in pids),
        "proc/processes": "".join(f"{pid}/ns/net\tl\t0.000\tnet:[{pid + 9000}]\n" for pid in pids),
    }
    for pid in pids:
        texts[f"api/inspect/{pid}"] = inspect.format(pid=pid, net="other" if pid == pids[-1] else "n1")
        texts[f"store/containers/{pid}/resolv.conf"] = "nameserver 192.0.2.9\n"
    records |= {name: Record(name, "file", name, data=text.encode()) for name, text in texts.items()}
    found, more = questions(records, ())
    assert (len(found), more) == (MANY, 0)
    assert {"1", str(pids[0] + 9000), str(pids[-1] + 9000)} <= {one.inode for one in found}


def test_a_process_that_is_slow_to_begin_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes to start an interpreter on a busy machine is not taken from the time that servers have."""
    line = "4026532250 192.0.2.1 udp silent - 200.0\n"
    argv = ("sh", "-c", f"sleep 1; printf '{line}'")
    monkeypatch.setattr(spawn, "own", lambda *_: argv)
    done = LocalHost().ask([Question("1", "host", "192.0.2.1", LOOPBACK)], 0.2)
    assert (done.status, done.stdout.decode()) == ("ok", line)
