"""A host for the network controller alone: one network namespace, containers that are a namespace and a name.

Settings are docker's own words (`--network shop -p 8080:80`), so that a live engine and ours can be told the same.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from doctor.linux.rtwrite import Batch
from doctor.linux.syscalls import CLONE_NEWNET, setns, unshare
from doctor.runtime.model import Attachment, Container, ContainerSpec, NetworkSpec, Pool, Publish, Settings, World
from doctor.runtime.network import NetworkController
from doctor.runtime.ports import parse

if TYPE_CHECKING:
    from collections.abc import Callable

VERSIONS = {"20.10": "20.10.24", "26": "26.1.5", "28": "28.5.2", "29": "29.7.2", "29-nftables": "29.7.2"}
HOST_IP = "198.51.100.2"
_Result = TypeVar("_Result")


def apart(function: Callable[[], _Result], *, user: bool = False) -> _Result:
    """Call a function in a forked child that has a network namespace of its own; gives what it returns or raises.

    `user`: in a user namespace of its own, too.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            try:
                _settle(user=user)
                answer: tuple[bool, object] = (True, function())
            except BaseException:  # noqa: BLE001 - carried over
                answer = (False, traceback.format_exc())
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    done, value = pickle.loads(data)  # noqa: S301 - our own child's
    assert done, value
    result: _Result = value
    return result


def _settle(*, user: bool) -> None:
    if user:
        uid, gid = os.geteuid(), os.getegid()
        unshare(0x10000000)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    unshare(CLONE_NEWNET)
    with Batch() as batch:
        batch.up(1)
        batch.veth("eth0", "out0", up=True)
        batch.commit()
        batch.up(socket.if_nametoindex("out0"))
        batch.address(socket.if_nametoindex("eth0"), f"{HOST_IP}/24")
        batch.commit()


class Host:
    """What a daemon is to its network controller."""

    def __init__(
        self, dialect: str, values: dict[str, Any] | None = None, version: str = "", resolv: str = "/dev/null"
    ) -> None:
        """Start a daemon of a dialect with these options; `resolv` is the host's resolv.conf."""
        settings = Settings(dialect, version or VERSIONS[dialect], dict(values or {}))
        self.world = World(settings, {}, {}, {})
        self.controller = NetworkController(self.world, proxy="/sbin/docker-proxy", resolv=resolv)
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.spaces: dict[str, int] = {}
        self.paused = ""

    def start(self) -> None:
        """Bring the networks up."""
        self.controller.start()

    def network(self, words: str, identity: str = "") -> str:
        """`docker network create`."""
        spec = network_spec(words.split(" "))
        return self.controller.create_network(spec, identity or os.urandom(32).hex(), "").id

    def create(self, name: str, words: str = "", identity: str = "") -> str:
        """`docker create`, and its network namespace."""
        spec = container_spec(name, words.split(" ") if words else [])
        identity = identity or os.urandom(32).hex()
        links = {}
        for one in spec.links:
            target, _, alias = one.partition(":")
            links[alias or target] = self.named(target).id
        unshare(CLONE_NEWNET)
        self.spaces[identity] = os.open("/proc/self/ns/net", os.O_RDONLY)
        setns(self.home, CLONE_NEWNET)
        sandbox = f"/proc/{os.getpid()}/fd/{self.spaces[identity]}"
        self.world.containers[identity] = Container(identity, spec, "", links=links, sandbox=sandbox)
        return identity

    def run(self, name: str, words: str = "", identity: str = "") -> Container:
        """`docker run -d`, without the process."""
        identity = self.create(name, words, identity)
        return self.controller.join(identity, self.spaces[identity])

    def named(self, name: str) -> Container:
        """Find a container."""
        return next(one for one in self.world.containers.values() if one.spec.name == name)

    def stop(self, name: str) -> None:
        """`docker stop`."""
        one = self.controller.leave(self.named(name).id)
        os.close(self.spaces.pop(one.id))

    def again(self, name: str) -> Container:
        """`docker start` of what was stopped."""
        one = self.named(name)
        unshare(CLONE_NEWNET)
        self.spaces[one.id] = os.open("/proc/self/ns/net", os.O_RDONLY)
        setns(self.home, CLONE_NEWNET)
        return self.controller.join(one.id, self.spaces[one.id])

    def inside(self, name: str, function: Callable[[], _Result]) -> _Result:
        """Call a function in a container's network namespace."""
        setns(self.spaces[self.named(name).id], CLONE_NEWNET)
        try:
            return function()
        finally:
            setns(self.home, CLONE_NEWNET)

    def close(self) -> None:
        """Let go of everything."""
        for one in list(self.world.containers.values()):
            with suppress(Exception):
                self.controller.leave(one.id)
        self.controller.stop()


def sh(*argv: str) -> str:
    """Run a program here."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def network_spec(words: list[str]) -> NetworkSpec:
    """Read the arguments of `docker network create`."""
    pools: list[dict[str, Any]] = []
    options: dict[str, str] = {}
    flags = {"internal": False, "ipv6": False, "ipv4": True}
    name = ""
    rest = iter(words)
    for word in rest:
        key, _, value = word.partition("=")
        if key == "--subnet":
            pools.append({"subnet": value or next(rest)})
        elif key in {"--ip-range", "--gateway"}:
            pools[-1]["range" if key == "--ip-range" else "gateway"] = value or next(rest)
        elif key == "--aux-address":
            one, _, address = (value or next(rest)).partition("=")
            pools[-1].setdefault("aux", {})[one] = address
        elif key in {"-o", "--opt"}:
            option, _, given = (value or next(rest)).partition("=")
            options[option] = given
        elif key[2:] in flags:
            flags[key[2:]] = value != "false"
        else:
            name = word
    return NetworkSpec(
        name,
        pools=tuple(Pool(**one) for one in pools),
        internal=flags["internal"],
        ipv6=flags["ipv6"],
        ipv4=flags["ipv4"],
        options=options,
    )


def container_spec(name: str, words: list[str]) -> ContainerSpec:
    """Read the arguments of `docker run`."""
    found: dict[str, Any] = {}
    publish: list[Publish] = []
    lists: dict[str, list[str]] = {}
    networks: list[Attachment] = []
    address = ""
    plural = {
        "--expose": "expose",
        "--link": "links",
        "--dns": "dns",
        "--dns-search": "dns_search",
        "--dns-option": "dns_options",
        "--add-host": "extra_hosts",
        "--network-alias": "aliases",
    }
    rest = iter(words)
    for word in rest:
        key, _, value = word.partition("=")
        if key == "-P":
            found["publish_all"] = True
            continue
        value = value or next(rest)
        if key == "-p":
            publish += parse(value)
        elif key in plural:
            lists.setdefault(plural[key], []).append(value)
        elif key == "--ip":
            address = value
        elif key in {"--network", "--net"}:
            if value in {"host", "none"} or value.startswith("container:"):
                found["network_mode"] = value
            else:
                fields = dict(one.partition("=")[::2] for one in value.split(","))
                networks.append(Attachment(fields.get("name", value), priority=int(fields.get("gw-priority", 0))))
        elif key in {"--hostname", "--domainname"}:
            found[key[2:]] = value
        elif key != "--restart":
            raise AssertionError(key)
    aliases = tuple(lists.pop("aliases", ()))
    if networks:
        networks[0] = replace(networks[0], ip=address, aliases=aliases)
    return ContainerSpec(
        name,
        "busybox",
        publish=tuple(publish),
        networks=tuple(networks),
        **{k: tuple(v) for k, v in lists.items()},
        **found,
    )


def saved(program: str) -> dict[tuple[str, str], list[str]]:
    """What a saver prints here: (table, chain) → rules; chains of the kernel that hold none are left out."""
    chains: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in sh(f"{program}-save").split("\n"):
        if line[:1] == "*":
            table = line[1:]
        elif line[:1] == ":" and line.split(" ")[1] == "-":
            chains[table, line[1:].split(" ")[0]] = []
        elif line[:3] == "-A ":
            _, chain, rule = line.split(" ", 2)
            chains.setdefault((table, chain), []).append(rule)
    return chains


if __name__ == "__main__":
    sys.exit("a module of the tests")
