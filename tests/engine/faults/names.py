"""Faults of names: resolv.conf, Docker's own DNS, hosts and hostname files, links of the old kind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


def _file(host: EngineHost, container: str, name: str) -> str:
    identity = host.docker("inspect", "-f", "{{.Id}}", container)
    return f"/var/lib/docker/containers/{identity}/{name}"


def _inside(host: EngineHost, container: str, command: str) -> None:
    host.sh(f"nsenter -t {host.container_pid(container)} -n {command}")


# What prepares


def _linked(host: EngineHost) -> None:
    """`target` and `linked`, which calls it `database`, on the default bridge."""
    host.docker("run", "-d", "--name", "target", "-p", "9090:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "linked", "--link", "target:database", IMAGE, "serve")
    host.await_listening("target", 80)
    host.await_listening("linked", 80)


# What breaks


def _dnsmasq(host: EngineHost) -> None:
    """The host asks a resolver of its own, and a container is started after that."""
    host.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    host.docker("restart", "web")
    host.await_listening("web", 80)


def _mended(host: EngineHost) -> None:
    host.write("/etc/resolv.conf", "nameserver 198.51.100.1\n")
    host.docker("restart", "web")


def _mended_too_late(host: EngineHost) -> None:
    _dnsmasq(host)
    host.write("/etc/resolv.conf", "nameserver 198.51.100.1\n")


def _own_resolver(host: EngineHost) -> None:
    """What a VPN client does in a container."""
    host.docker("exec", "api", "sh", "-c", "echo nameserver 10.8.0.1 >/etc/resolv.conf")


def _replace(host: EngineHost, container: str, name: str, old: str, new: str) -> None:
    path = _file(host, container, name)
    text = host.read(path)
    assert old in text
    host.write(path, text.replace(old, new))


def _no_own_line(host: EngineHost) -> None:
    path = _file(host, "web", "hosts")
    lines = host.read(path).splitlines(keepends=True)
    host.write(path, "".join(line for line in lines if not line.startswith("172.17.0.2")))


def _no_alias(host: EngineHost) -> None:
    path = _file(host, "linked", "hosts")
    lines = host.read(path).splitlines(keepends=True)
    host.write(path, "".join(line for line in lines if "database" not in line))


def _no_rules(host: EngineHost) -> None:
    """The rules of every link are gone from DOCKER."""
    host.sh(r"iptables -S DOCKER | sed -n 's/^-A \(DOCKER -s .*\)/iptables -D \1/p' | sh")


# What proves


def servers(host: EngineHost) -> object:
    """Whom web asks for names."""
    return host.docker("exec", "web", "cat", "/etc/resolv.conf")


def neighbours(host: EngineHost) -> object:
    """Whether api resolves the name of its neighbour."""
    return host.run("docker", "exec", "api", "timeout", "3", "nslookup", "db", check=False).returncode == 0


def itself(host: EngineHost) -> object:
    """As whom web knows itself: whether it resolves its own name to its own address, and what hostname says."""
    line = host.docker("exec", "web", "sh", "-c", "grep -w $(hostname) /etc/hosts || true").split()
    return line[:1], host.docker("exec", "web", "cat", "/etc/hostname")


def database(host: EngineHost) -> object:
    """Whether the linked container gets a page from its database."""
    return (
        host.run(
            "docker", "exec", "linked", "timeout", "1", "wget", "-qO-", "http://database/cgi-bin/peer", check=False
        ).returncode
        == 0
    )


def starts_again(host: EngineHost) -> object:
    """Whether the linked container starts again once stopped."""
    host.docker("stop", "linked")
    code = host.run("docker", "start", "linked", check=False).returncode
    if code:  # run again what runs on while the fault stands
        host.docker("start", "target")
        host.docker("start", "linked")
        host.docker("stop", "target")
    time.sleep(0.1)
    return code


FAULTS = (
    Fault("NET042", "dnsmasq", _dnsmasq, servers, ("NET043",), level="warning", heal=_mended),
    Fault("NET043", "mended-too-late", _mended_too_late, servers, level="warning"),
    Fault("NET043", "rewritten", _own_resolver, neighbours, level="warning"),
    Fault("NET044", "flushed", lambda h: _inside(h, "api", "iptables -t nat -F"), neighbours),
    Fault("NET044", "nft-flush", lambda h: _inside(h, "api", "nft flush ruleset"), neighbours),
    Fault("NET044", "jump-gone", lambda h: _inside(h, "api", "iptables -t nat -F OUTPUT"), neighbours),
    Fault("NET045", "no-line", _no_own_line, itself, level="warning"),
    Fault(
        "NET045",
        "old-address",
        lambda h: _replace(h, "web", "hosts", "172.17.0.2", "172.17.0.9"),
        itself,
        level="warning",
    ),
    Fault("NET045", "hostname", lambda h: h.write(_file(h, "web", "hostname"), "other\n"), itself, level="warning"),
    Fault(
        "NET040",
        "old-address",
        lambda h: _replace(h, "linked", "hosts", h.container_ip("target"), "172.17.0.99"),
        database,
        setup=_linked,
    ),
    Fault("NET040", "rules-gone", _no_rules, database, setup=_linked, daemon_args=("--icc=false",)),
    Fault("NET041", "alias-gone", _no_alias, database, setup=_linked),
    Fault("NET041", "target-down", lambda h: h.docker("stop", "target"), starts_again, level="warning", setup=_linked),
)
