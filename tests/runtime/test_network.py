"""The network controller on hosts of its own: packets that really go, names that are really asked (root)."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from doctor.runtime import dnswire, resolvers
from doctor.runtime.model import Attachment
from doctor.runtime.network import NetworkError
from tests.runtime.nets import HOST_IP, Host, apart, sh

pytestmark = pytest.mark.root

DIALECTS = ("20.10", "26", "28", "29", "29-nftables")
ENDS = (("web", "-p 8080:80"), ("api", "--network shop -p 9000:80"), ("db", "--network back"))
SHOP = "--subnet 10.7.0.0/24 shop"
NAMES = {errno.ECONNREFUSED: "refused", errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "no network"}


def listen(address: str = "0.0.0.0", port: int = 80) -> socket.socket:  # noqa: S104 - in a namespace
    """A server that nobody serves: the kernel answers."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen()
    return made


def connect(address: str, port: int, seconds: float = 0.4) -> str:
    """Try a connection from here."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.setblocking(False)  # noqa: FBT003 - its name
    with made:
        code = made.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            if not select.select([], [made], [], seconds)[1]:
                return "timeout"
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return NAMES.get(code, "connected" if not code else os.strerror(code))


def probe(host: Host, flows: list[tuple[str, str, int]], seconds: float = 1.0) -> dict[tuple[str, str, int], str]:
    """Try many connections at once, each from `host` or a container; the words are those of `tests.enginehost`."""
    found: dict[tuple[str, str, int], str] = {}
    waiting: dict[socket.socket, tuple[str, str, int]] = {}
    for flow in flows:
        source, address, port = flow
        made = host.inside(source, socket.socket) if source != "host" else socket.socket()
        made.setblocking(False)  # noqa: FBT003 - its name
        code = made.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            waiting[made] = flow
        else:
            found[flow] = {0: "connected", errno.ECONNREFUSED: "refused"}.get(code, "no-route")
            made.close()
    until = time.monotonic() + seconds
    while waiting and (left := until - time.monotonic()) > 0:
        for made in select.select([], list(waiting), [], left)[1]:
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            found[waiting.pop(made)] = {0: "connected", errno.ECONNREFUSED: "refused"}.get(code, "unreachable")
            made.close()
    for made, flow in waiting.items():
        found[flow] = "timeout"
        made.close()
    return found


def fetch(address: str, port: int) -> bytes:
    """Say something over a connection and hear it back: through a proxy, or not."""
    with socket.create_connection((address, port), 2) as made:
        made.sendall(b"hello")
        made.shutdown(socket.SHUT_WR)
        found = b""
        while data := made.recv(100):
            found += data
        return found


def asked(name: str, kind: int = dnswire.A, *, stream: bool = False) -> bytes:
    """A question, as a resolver asks it."""
    number = 4242
    text = (
        number.to_bytes(2, "big")
        + b"\1\0\0\1\0\0\0\0\0\0"
        + dnswire.write_name(name)
        + kind.to_bytes(2, "big")
        + b"\0\1"
    )
    return len(text).to_bytes(2, "big") + text if stream else text


def ask(
    host: Host, name: str, question: str, kind: int = dnswire.A, *, stream: bool = False, seconds: float = 6
) -> tuple[int, list[str]]:
    """Ask the embedded DNS from a container; gives the code, -1 for silence, and the answers."""

    def work() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as made:
            made.settimeout(2)
            made.connect(("127.0.0.11", 53))
            made.send(asked(question, kind, stream=stream))
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                if select.select([made], [], [], 0)[0]:
                    data = made.recv(4096)
                    return data[2:] if stream else data
                readable, _, _ = select.select([made, host.controller.fileno()], [], [], host.controller.timeout() or 1)
                if made not in readable:
                    host.controller.work()
            return b""

    data = host.inside(name, work)
    return parsed(data) if data else (-1, [])


def parsed(data: bytes) -> tuple[int, list[str]]:
    """The code of an answer and what it says."""
    question = dnswire.read_question(data[:2] + b"\1\0" + data[4:6] + b"\0\0\0\0\0\0" + data[12:])
    at = 12 + len(question.wire)
    found = []
    for _ in range(int.from_bytes(data[6:8], "big")):
        at += len(question.wire) - 4 if data[at] < 192 else 2
        kind, size = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 8 : at + 10], "big")
        value = data[at + 10 : at + 10 + size]
        if kind == dnswire.PTR:
            found.append(dnswire._read_name(value, 0)[0])
        else:
            found.append(socket.inet_ntop(socket.AF_INET if kind == dnswire.A else socket.AF_INET6, value))
        at += 10 + size
    return data[3] & 15, sorted(found)


def nameserver() -> int:
    """Fork a nameserver of the host: it knows outside.example, and says of all else that there is no such name."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.bind((HOST_IP, 53))
    streams = listen(HOST_IP, 53)
    if pid := os.fork():
        return pid
    while True:
        for one in select.select([plain, streams], [], [])[0]:
            if one is plain:
                data, client = plain.recvfrom(512)
                plain.sendto(_known(data), client)
            else:
                made, _ = streams.accept()
                answer = _known(made.recv(512)[2:])
                made.sendall(len(answer).to_bytes(2, "big") + answer)
                made.close()


def _known(data: bytes) -> bytes:
    question = dnswire.read_question(data)
    if question.name == "outside.example.":
        return dnswire.address_answer(question, ["192.0.2.80"], 512)
    answer = bytearray(dnswire.failure(question, dnswire.NXDOMAIN))
    answer[2] |= 4  # authoritative
    return bytes(answer)


def two_networks(dialect: str, resolv: str = "/dev/null", **values: object) -> Host:
    """docker0 with web (published on 8080), the network shop with api and db; all listen on 80."""
    if dialect == "29-nftables":
        sh("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")  # that back end never does
    host = Host(dialect, {key.replace("_", "-"): value for key, value in values.items()}, resolv=resolv)
    host.start()
    host.network(SHOP)
    with host.controller.batch():
        host.run("web", "-p 8080:80 -p 127.0.0.1:8081:80 -p 8082:82")
        host.run("peer")
        host.run("api", "--network shop --network-alias back")
        host.run("db", "--network shop --network-alias back")
    return host


def fates(dialect: str, **values: object) -> dict[str, str]:
    """What connections of all kinds meet."""
    host = two_networks(dialect, **values)
    held = [host.inside(name, listen) for name in ("web", "peer", "api", "db")]
    tries = {
        "host to published": (None, "127.0.0.1", 8080),
        "host to its own address": (None, HOST_IP, 8080),
        "host to loopback port": (None, "127.0.0.1", 8081),
        "host to port of nothing": (None, HOST_IP, 8083),
        "host to container": (None, "172.17.0.2", 80),
        "peer to web": ("peer", "172.17.0.2", 80),
        "peer to published": ("peer", HOST_IP, 8080),
        "api to db": ("api", "10.7.0.3", 80),
        "api to web": ("api", "172.17.0.2", 80),
        "api to published": ("api", HOST_IP, 8080),
    }
    found = {}
    for name, (where, address, port) in tries.items():
        found[name] = host.inside(where, lambda a=address, p=port: connect(a, p)) if where else connect(address, port)
    for one in held:
        one.close()
    host.close()
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
def test_packets_go_as_the_rules_say(dialect: str) -> None:
    """Published ports answer, neighbours do, other networks do not."""
    found = apart(lambda: fates(dialect))
    assert {name: what for name, what in found.items() if what != "connected"} == {
        "host to port of nothing": "refused",
        "api to web": "timeout",
    }


@pytest.mark.parametrize("dialect", DIALECTS)
def test_neighbours_kept_apart(dialect: str) -> None:
    """Icc off on docker0 only."""
    found = apart(lambda: fates(dialect, icc=False, userland_proxy=False))
    assert (found["peer to web"], found["api to db"]) == ("timeout", "connected")
    assert found["host to published"] == "connected", "through route_localnet and the rule for the host's own packets"


def test_bytes_go_through_the_proxy() -> None:
    """Both ways, over TCP with its ends, and over UDP; a container that does not listen hangs up."""

    def work() -> list[Any]:
        host = Host("28", {"iptables": False})
        host.start()
        host.run("web", "-p 8080:80 -p 53:53/udp -p 8081:81")
        server = host.inside("web", listen)
        plain = host.inside("web", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        plain.bind(("0.0.0.0", 53))  # noqa: S104 - in a namespace
        if not os.fork():
            one, _ = server.accept()
            found = b""
            while data := one.recv(100):
                found += data
            one.sendall(found.upper() * 50_000)
            one.close()
            data, client = plain.recvfrom(100)
            plain.sendto(data.upper(), client)
            os._exit(0)
        large = fetch("127.0.0.1", 8080)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(2)
            asker.sendto(b"name", (HOST_IP, 53))
            answer = asker.recv(100)
        server.close()
        try:
            empty = fetch("127.0.0.1", 8081)
        except OSError:
            empty = b""
        proxies = [one.proxy for one in host.named("web").ports]
        shown = {one: sh("ps", "-o", "comm=", "-p", str(one)).strip() for one in proxies}
        rollups = [Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii") for one in proxies]
        own = re.compile(r"^Private_\w+: +(\d+)", re.MULTILINE)  # a share of what pytest holds is not the proxy's
        used = max(sum(map(int, own.findall(text))) for text in rollups)
        host.stop("web")
        gone = [one for one in proxies if os.path.exists(f"/proc/{one}")]  # noqa: PTH110
        host.close()
        return [large == b"HELLO" * 50_000, answer, empty, sorted(set(shown.values())), used, gone]

    large, answer, empty, names, used, gone = apart(work)
    assert (large, answer, empty, names, gone) == (True, b"NAME", b"", ["docker-proxy"], [])
    assert used < 8192, "kilobytes of one proxy alone"


@pytest.mark.parametrize("dialect", ["26", "28", "29-nftables"])
def test_names_are_answered(dialect: str, tmp_path: Path) -> None:
    """By name, alias, id and name.network, over UDP and TCP; several of one alias; back; what is nobody's goes on."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {HOST_IP}\n", encoding="ascii")

    def work() -> dict[str, Any]:
        server = nameserver()
        host = two_networks(dialect, str(resolv))
        api, db = host.named("api").id[:12], host.named("db").id[:12]
        found = {
            "name": ask(host, "api", "db"),
            "case": ask(host, "api", "DB"),
            "alias": ask(host, "api", "back"),
            "id": ask(host, "api", db),
            "own id": ask(host, "api", api),
            "network": ask(host, "api", "db.shop"),
            "tcp": ask(host, "api", "back", stream=True),
            "aaaa": ask(host, "api", "db", dnswire.AAAA),
            "mx": ask(host, "api", "db", dnswire.MX),
            "ptr": ask(host, "api", "3.0.7.10.in-addr.arpa", dnswire.PTR),
            "other network": ask(host, "api", "web"),
            "outside": ask(host, "api", "outside.example"),
            "outside by tcp": ask(host, "api", "outside.example", stream=True),
        }
        host.controller.connect(
            host.named("web").id, Attachment("shop", aliases=("front",)), host.spaces[host.named("web").id]
        )
        found |= {"connected": ask(host, "api", "front"), "from there": ask(host, "web", "db")}
        host.stop("db")
        found |= {"stopped": ask(host, "api", "db"), "left": ask(host, "api", "back")}
        host.close()
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        return found

    found = apart(work)
    both = (0, ["10.7.0.2", "10.7.0.3"])
    db = (0, ["10.7.0.3"])
    assert found == {
        "name": db,
        "case": db,
        "alias": both,
        "id": db,
        "own id": (0, ["10.7.0.2"]),
        "network": db,
        "tcp": both,
        "aaaa": (0, []),
        "mx": (0, []),
        "ptr": (0, ["db.shop."]),
        "other network": (3, []),
        "outside": (0, ["192.0.2.80"]),
        "outside by tcp": (0, ["192.0.2.80"]),
        "connected": (0, ["10.7.0.4"]),
        "from there": db,
        "stopped": (3, []),
        "left": (0, ["10.7.0.2"]),
    }


def test_ports_that_cannot_be_had_leave_nothing() -> None:
    """The container has no address afterwards, no rule names it, and the next one gets what it had."""

    def work() -> list[Any]:
        host = Host("28")
        host.start()
        host.run("web", "-p 8080:80")
        before = sh("iptables-save").splitlines()[1:], sh("ip", "-o", "link")
        said = []
        for words in ("-p 8080:80", "-p 127.0.0.1:8080:80"):
            try:
                host.run("late", words)
            except NetworkError as error:
                said.append(str(error).replace(host.named("late").endpoints[0].id or "ID", "ID"))
            host.world.containers.pop(host.named("late").id)
        after = sh("iptables-save").splitlines()[1:], sh("ip", "-o", "link")
        plain = [[line for line in text if not line.startswith("#")] for text in (before[0], after[0])]
        address = host.run("next").endpoints[0].address
        host.close()
        return [said, plain[0] == plain[1], before[1] == after[1], address]

    said, rules, links, address = apart(work)
    assert all("Bind for 0.0.0.0:8080 failed: port is already allocated" in one for one in said), said
    assert all(one.startswith("failed to set up container networking: driver failed programming") for one in said)
    assert (rules, links, address) == (True, True, "172.17.0.3")


@pytest.mark.parametrize("dialect", ["20.10", "29"])
def test_rules_loaded_at_once_are_those_of_one_after_the_other(dialect: str) -> None:
    """A lab's first start loads them with its containers'; `docker network create` and `docker run` add theirs to them."""

    def work() -> list[str]:
        host = Host(dialect)
        host.controller.start("a" * 64, more=at_once)
        for number, words in enumerate((f"{SHOP} -o com.docker.network.bridge.name=shop", "--internal back")):
            host.network(words, f"{number:064x}")
        made = [host.create(name, words, f"{name:0>64}") for name, words in ENDS]
        if at_once:
            with host.controller.batch():
                for one in made:
                    host.controller.join(one, host.spaces[one])
        else:
            for one in made:
                host.controller.join(one, host.spaces[one])
        found = [line for line in sh("iptables-save").splitlines() if line[:1] == "-"]
        host.close()
        return found

    at_once = True
    first = apart(work)
    at_once = False
    assert first == apart(work)
    assert any("--dport 8080 -j DNAT" in line for line in first)


@pytest.mark.parametrize("dialect", ["20.10", "28", "29-nftables"])
def test_rules_of_resolvers_are_written_once_and_copied(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers that start together have what one that starts alone has, and each finds the others by name."""
    begun = []
    start = resolvers.start

    def counted(*arguments: Any, again: bool = False) -> Any:
        begun.append(again)
        return start(*arguments, again=again)

    monkeypatch.setattr(resolvers, "start", counted)
    program = ("nft", "list", "ruleset") if dialect == "29-nftables" else ("iptables-save",)

    def work() -> dict[str, Any]:
        host = Host(dialect, {"ip-forward": False})
        host.start()
        host.network(SHOP)
        host.run("alone", "--network shop")
        alone, together = len(begun), ("one", "two", "three")
        made = [host.create(name, "--network shop") for name in together]
        with host.controller.batch():
            for one in made:
                host.controller.join(one, host.spaces[one])
        rules = {name: host.inside(name, lambda: sh(*program)) for name in ("alone", *together)}
        found = {
            "programs": (alone, len(begun) - alone),
            "rules": [[line for line in text.splitlines() if line[:1] != "#"] for text in rules.values()],
            "names": [ask(host, name, "alone", stream=stream) for name in together for stream in (False, True)],
        }
        host.stop("two")
        host.again("two")
        found["again"] = ask(host, "two", "three")[0]
        host.close()
        return found

    found = apart(work)
    assert found["programs"] == (1, 1)
    assert found["rules"][1] == found["rules"][2] == found["rules"][3]
    masked = [re.sub(r"\b(3[2-9]|[45]\d|60)\d{3}\b", "PORT", "\n".join(lines)) for lines in found["rules"][:2]]
    assert masked[0] == masked[1]
    assert masked[0].count("PORT") == 4
    assert [code for code, _ in found["names"]] == [0] * 6
    assert found["again"] == 0


@pytest.mark.parametrize("user", [False, True])
def test_a_new_owner_of_an_address_is_announced(*, user: bool) -> None:
    """Who spoke to the last one finds the new one at once; and the switch that did it is as it was."""

    def work() -> list[Any]:
        host = Host("28")
        host.start()
        host.run("other")  # a bridge with nobody on it forgets its neighbours
        first = host.run("first").endpoints[0]
        held = host.inside("first", listen)
        before = connect(first.address, 80, 3.0)
        host.stop("first")
        second = host.run("second").endpoints[0]
        until = time.monotonic() + 2
        while second.mac not in sh("ip", "neigh", "show", first.address) and time.monotonic() < until:
            time.sleep(0.01)
        found = [
            before,
            first.address == second.address,
            first.mac == second.mac,
            second.mac in sh("ip", "neigh", "show", first.address),
            host.inside("second", lambda: Path("/proc/sys/net/ipv4/conf/eth0/arp_notify").read_text().strip()),
        ]
        held.close()
        host.close()
        return found

    assert apart(work, user=user) == ["connected", True, False, True, "0"]


def test_a_daemon_that_comes_back_takes_over() -> None:
    """With live-restore: addresses, ports, names and rules hold; what was flushed or added is mended, others' rules stay."""

    def work() -> list[Any]:
        host = two_networks("28", live_restore=True)
        rules = sh("iptables-save", "-t", "nat")
        host.controller.stop()
        sh("iptables", "-F", "DOCKER")
        sh("iptables", "-I", "FORWARD", "-i", "wg0", "-j", "ACCEPT")
        sh(
            "iptables",
            "-t",
            "nat",
            "-A",
            "DOCKER",
            "-p",
            "tcp",
            "--dport",
            "1",
            "-j",
            "DNAT",
            "--to-destination",
            "10.9.9.9:1",
        )
        from doctor.runtime.network import NetworkController

        host.controller = NetworkController(host.world, resolv="/dev/null")
        host.controller.start()
        held = host.inside("web", listen)
        found = [
            [line for line in sh("iptables-save", "-t", "nat").splitlines() if line[:1] == "-"]
            == [line for line in rules.splitlines() if line[:1] == "-"],
            "-i wg0 -j ACCEPT" in sh("iptables", "-S", "FORWARD"),
            connect(HOST_IP, 8080),
            ask(host, "api", "db"),
        ]
        held.close()
        host.close()
        return found

    assert apart(work) == [True, True, "connected", (0, ["10.7.0.3"])]


@pytest.mark.parametrize("dialect", ["20.10", "28", "29-nftables"])
def test_in_a_user_namespace(dialect: str) -> None:
    """All of it without any privilege outside."""

    def work() -> list[Any]:
        host = two_networks(dialect)
        held = [host.inside(name, listen) for name in ("web", "db")]
        found = [
            connect("127.0.0.1", 8080),
            host.inside("api", lambda: connect("10.7.0.3", 80)),
            ask(host, "api", "db"),
        ]
        for one in held:
            one.close()
        host.close()
        return found

    assert apart(work, user=True) == ["connected", "connected", (0, ["10.7.0.3"])]
