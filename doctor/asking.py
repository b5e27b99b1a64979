"""Which nameservers are asked with `--probe`, from where, and what: read from the evidence that is there by then.

Each server that the resolv.conf of a running container names is asked from that container's network namespace, each that
the host's names from the host's own. A container that asks 127.0.0.11 asks dockerd: that is asked for the container's own
address, which dockerd knows, and the servers behind it are asked from where dockerd asks them (moby
libnetwork/internal/resolvconf writes both into the file from 25 on; before, it is the container's namespace).

The question sent to all others is the name of 127.0.0.1: who resolves names answers that by itself (RFC 6303), so
nothing that this host does is told, and no other server is asked for it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from doctor.linux.ask import Question
from doctor.snapshot import tree_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.snapshot import Record

MANY = 64
"""Pairs of namespace and server that are asked, at most: twice as many packets and sockets.

Where there are more, each server is asked from each network first, so that none goes unasked: neighbours share the way.
"""

LOOPBACK = "1.0.0.127.in-addr.arpa"
EMBEDDED, STUB = "127.0.0.11", "127.0.0.53"

_SERVER = re.compile(r"^[ \t]*nameserver[ \t]+(\S+)", re.MULTILINE)
_BEHIND = re.compile(r"^# ExtServers: \[([^\]\n]*)\]", re.MULTILINE)
_NETWORK = re.compile(r"^(\d+)/ns/net\tl\t[\d.]+\tnet:\[(\d+)\]", re.MULTILINE)


class _End(msgspec.Struct):
    NetworkID: str = ""
    IPAddress: str = ""
    GlobalIPv6Address: str = ""


class _Settings(msgspec.Struct):
    Networks: dict[str, _End] | None = None


class _Mount(msgspec.Struct):
    Destination: str = ""


class _Host(msgspec.Struct):
    Dns: list[str] | None = None


class _State(msgspec.Struct):
    Pid: int = 0


class _Inspect(msgspec.Struct):
    """What an inspect says of how a container resolves names."""

    State: _State | None = None
    NetworkSettings: _Settings | None = None
    Mounts: list[_Mount] | None = None
    HostConfig: _Host | None = None


class _Network(msgspec.Struct):
    Id: str = ""
    Internal: bool = False


def questions(records: dict[str, Record], argv: tuple[str, ...]) -> tuple[list[Question], int]:
    """Give what to ask, and how many pairs of network and server are not asked at all. `argv` is that of dockerd."""
    asked: dict[tuple[str, str], Question] = {}
    groups: dict[tuple[str, str], list[Question]] = {}
    for network, one in _wanted(records, argv):
        if asked.setdefault((one.inode, one.server), one) is one:
            groups.setdefault((network, one.server), []).append(one)
    ranked = (
        sorted((rank, one) for held in groups.values() for rank, one in enumerate(held)) if len(asked) > MANY else []
    )
    chosen = [one for _, one in ranked][:MANY] or list(asked.values())
    return chosen, max(0, len(groups) - MANY)


def _wanted(records: dict[str, Record], argv: tuple[str, ...]) -> Iterator[tuple[str, Question]]:
    """Give the questions, each with the networks of who asks."""
    index = records.get("netns/index")
    places = {one.path: one.content for one in tree_entries(index)} if index is not None else {}
    host = next((inode for inode, place in places.items() if place == "host"), "0")
    ours = _servers(_text(records, "files/etc/resolv.conf"))
    if ours == [STUB]:  # systemd-resolved asks those of its own file, and so do dockerd and its containers
        ours += _servers(_text(records, "files/run/systemd/resolve/resolv.conf"))
    for server in ours:
        yield "host", Question(host, "host", server, LOOPBACK)
    internal = _internal(records)
    spaces = dict(_NETWORK.findall(_text(records, "proc/processes")))
    for name in sorted(name for name in records if name.startswith("api/inspect/")):
        held = _inspect(records[name])
        inode = spaces.get(str(held.State.Pid)) if held and held.State else None
        place = places.get(inode or "", "host")
        if held is None or inode is None or place == "host":
            continue
        container = name.removeprefix("api/inspect/")
        ends = (held.NetworkSettings and held.NetworkSettings.Networks) or {}
        own = next((one for end in ends.values() if (one := end.IPAddress or end.GlobalIPv6Address)), "")
        if not own or any(mount.Destination == "/etc/resolv.conf" for mount in held.Mounts or ()):
            continue  # there is nobody to ask, or it is not this file that it reads
        text = _text(records, f"store/containers/{container}/resolv.conf")
        path = f"/proc/{place}/ns/net" if place.isdigit() else place
        networks = " ".join(sorted(end.NetworkID for end in ends.values()))
        for server in _servers(text):
            if server != EMBEDDED:
                yield networks, Question(inode, path, server, LOOPBACK)
                continue
            if not _answers(records):
                continue  # who would answer is not there: that is known without asking
            yield networks, Question(inode, path, server, ip_address(own).reverse_pointer)
            if all(end.NetworkID in internal for end in ends.values()):
                continue  # dockerd asks nobody for a container that may not reach anything outside
            for theirs, behind in _behind(text, held, ours, records, argv):
                space, where = (host, "host") if theirs else (inode, path)
                yield "host" if theirs else networks, Question(space, where, behind, LOOPBACK)


def _behind(
    text: str, held: _Inspect, ours: list[str], records: dict[str, Record], argv: tuple[str, ...]
) -> Iterator[tuple[bool, str]]:
    """Give the servers that dockerd asks for a container, and whether it asks them from the host's namespace."""
    told = _BEHIND.search(text)
    if told:
        for word in told[1].split():
            bare = word.removeprefix("host(").removesuffix(")")
            if _is_address(bare):
                yield bare != word, bare
        return
    given = held.HostConfig.Dns if held.HostConfig and held.HostConfig.Dns else None
    if given is None and (
        any(word.startswith("--dns") for word in argv) or '"dns"' in _text(records, "engine/daemon.json")
    ):
        return  # dockerd's own list: the containers that were started under another one do not tell
    for server in given or ours:
        if _is_address(server) and not ip_address(server.partition("%")[0]).is_loopback:
            yield False, server


def _answers(records: dict[str, Record]) -> bool:
    ping = records.get("api/ping")
    return ping is not None and ping.status == "ok"


def _internal(records: dict[str, Record]) -> set[str]:
    try:
        held = msgspec.json.decode(records["api/networks"].data, type=list[_Network])
    except (KeyError, msgspec.MsgspecError):
        return set()
    return {one.Id for one in held if one.Internal}


def _inspect(record: Record) -> _Inspect | None:
    try:
        return msgspec.json.decode(record.data, type=_Inspect) if record.readable else None
    except msgspec.MsgspecError:
        return None


def _servers(text: str) -> list[str]:
    return [one for one in _SERVER.findall(text) if _is_address(one)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _text(records: dict[str, Record], name: str) -> str:
    record = records.get(name)
    return record.text if record is not None and record.readable else ""
