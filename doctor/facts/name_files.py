"""Files that say how names are resolved: resolv.conf of the host, and resolv.conf, hosts and hostname of containers.

Those of a container are in DATA-ROOT/containers/ID and are mounted into it. dockerd from 26 on says in resolv.conf how it
was made; what is read here is what the resolver reads (resolv.conf(5))::

    nameserver 127.0.0.11
    # ExtServers: [host(198.51.100.1)]
    # Used default nameservers.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Container, Containers
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

EMBEDDED = "127.0.0.11"
"""Where dockerd answers names inside a container on a user-defined network."""

STUB = "127.0.0.53"
"""systemd-resolved's address; dockerd then reads the file of its real servers, if that is the only one named."""

DEFAULTS = frozenset({"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"})
"""Google's servers, which dockerd writes where the host names none that a container could reach."""

_BEHIND = re.compile(r"^# ExtServers: \[([^\]\n]*)\]", re.MULTILINE)
_SERVER = re.compile(r"^[ \t]*nameserver[ \t]+(\S+)", re.MULTILINE)


def is_loopback(address: str) -> bool:
    """Whether an address is reached from its own namespace only."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


class ResolvConf(Struct, frozen=True):
    """One resolv.conf: the servers in order. `missing` says why it could not be read; `absent` that there is none."""

    path: str
    record: str
    servers: tuple[str, ...]
    text: str
    missing: str = ""
    absent: bool = False

    @property
    def beyond(self) -> tuple[str, ...]:
        """Servers that are not the reader's own."""
        return tuple(one for one in self.servers if not is_loopback(one))

    @property
    def behind(self) -> tuple[tuple[str, bool], ...] | None:
        """The servers that dockerd asks for it, and whether from the host's namespace; None where the file does not tell."""
        told = _BEHIND.search(self.text)
        if told is None:
            return None
        return tuple((word.removeprefix("host(").removesuffix(")"), "(" in word) for word in told[1].split())

    @property
    def cited(self) -> Citation:
        """The first line that names a server, or the file as a whole."""
        for _, cited in self.named():
            return cited
        return Citation(self.record, 0, "no such file" if self.absent else "names no nameserver", self.path)

    def named(self) -> Iterator[tuple[str, Citation]]:
        """Give the servers, each with the line that names it."""
        for match in _SERVER.finditer(self.text):
            line = self.text.count("\n", 0, match.start(1)) + 1
            yield match[1], Citation(self.record, line, match[0].strip(), f"{self.path}:{line}")


class Names(Struct, frozen=True):
    """The three files of one container; `hosts` and `hostname` are None when they could not be read."""

    resolv: ResolvConf
    hosts: str | None
    hostname: str | None
    hosts_path: str
    hosts_record: str
    hostname_path: str
    hostname_record: str

    def entries(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """Give line, address and names of each entry of hosts."""
        found = []
        for number, line in enumerate((self.hosts or "").split("\n"), 1):
            words = line.partition("#")[0].split()
            if len(words) > 1:
                found.append((number, words[0], tuple(words[1:])))
        return found

    def cite(self, line: int) -> Citation:
        """Cite a line of hosts, or the file as a whole."""
        lines = (self.hosts or "").split("\n")
        excerpt = lines[line - 1].replace("\t", " ") if line else f"{len(lines) - 1} lines"
        return Citation(self.hosts_record, line, excerpt, f"{self.hosts_path}:{line}" if line else self.hosts_path)


class NameFiles(Struct, frozen=True):
    """The host's resolv.conf, that of systemd-resolved's real servers, and the files of each running container by id.

    A container that has another's or the host's files, or brings its own, is not in it for that file.
    """

    host: ResolvConf
    behind_stub: ResolvConf
    containers: dict[str, Names]

    @property
    def source(self) -> ResolvConf:
        """The file that dockerd takes the host's servers from."""
        stub = self.host.servers == (STUB,)
        return self.behind_stub if stub and self.behind_stub.servers else self.host

    @property
    def asked(self) -> dict[str, Citation]:
        """The addresses that this host asks, without their zones, and the line that names each first."""
        found: dict[str, Citation] = {}
        for name, cited in (*self.host.named(), *self.behind_stub.named()):
            try:
                found.setdefault(str(ip_address(name.partition("%")[0])), cited)
            except ValueError:
                continue
        return found


@fact
def name_files(snapshot: Snapshot, containers: Containers) -> NameFiles:
    """Read them."""
    return NameFiles(
        _resolv(snapshot.get("files/etc/resolv.conf")),
        _resolv(snapshot.get("files/run/systemd/resolve/resolv.conf")),
        {one.id: _names(snapshot, one) for one in containers.running if one.own_network},
    )


def _names(snapshot: Snapshot, container: Container) -> Names:
    folder = f"store/containers/{container.id}"
    mounted = {inside for _, inside in container.asked.binds}
    resolv = _resolv(snapshot.get(f"{folder}/resolv.conf"))
    if "/etc/resolv.conf" in mounted:
        resolv = ResolvConf(resolv.path, resolv.record, (), "", missing="mounted")
    hosts, hostname = snapshot.get(f"{folder}/hosts"), snapshot.get(f"{folder}/hostname")
    return Names(
        resolv,
        hosts.text if hosts.readable and "/etc/hosts" not in mounted else None,
        hostname.text if hostname.readable and "/etc/hostname" not in mounted else None,
        hosts.target,
        hosts.name,
        hostname.target,
        hostname.name,
    )


def _resolv(record: Record) -> ResolvConf:
    if not record.readable:
        absent = record.status == "absent"
        return ResolvConf(record.target, record.name, (), "", record.why or record.status, absent=absent)
    text = record.text
    return ResolvConf(record.target, record.name, tuple(_SERVER.findall(text)), text)
