"""What is not of the engine's host is taken out of a snapshot, and said to be missing."""

from __future__ import annotations

import os

import msgspec
import pytest
from msgspec.structs import replace

from doctor.examine import Facts
from doctor.host import LocalHost
from doctor.registry import load
from doctor.snapshot import EvidenceMissing, Meta, Record, Snapshot
from doctor.vantage import Vantage, applied, look, whole
from tests.collect.test_sources import NOWHERE

NAMES = (
    *("api/ping", "api/version", "api/inspect/a1", "engine/places", "engine/client", "engine/daemon.json"),
    *("files/proc/sys/net/ipv4/ip_forward", "net/nft", "netns/host/links", "netns/4026532000/links", "netns/index"),
    *("proc/processes", "run/netns", "store/overlay2", "store/containers/a1/hosts", "cgroup/containers"),
)


class Machine(LocalHost):
    """A machine on which no dockerd runs, with the mounts that the test says."""

    def __init__(self, mounts: str = "") -> None:
        """Have these mounts."""
        super().__init__()
        self.mounts = mounts

    def listdir(self, path: str) -> list[str]:
        """Show no process."""
        return [] if path == "/proc" else super().listdir(path)

    def read(self, path: str, limit: int) -> tuple[bytes, os.stat_result]:
        """Show the mounts."""
        data, about = super().read(path, limit)
        return (self.mounts.encode(), about) if path == "/proc/self/mountinfo" else (data, about)


def records(**data: bytes) -> dict[str, Record]:
    """Give records of every kind; `data` is that of records of the API."""
    made = {name: Record(name, "file", name, data=b"x") for name in NAMES}
    return made | {f"api/{name}": replace(made[f"api/{name}"], data=text) for name, text in data.items()}


def left(found: Vantage) -> set[str]:
    """Give the records that remain evidence."""
    return {name for name, one in applied(found, records()).items() if one.status == "ok"} - {"engine/vantage"}


def test_a_socket_from_elsewhere() -> None:
    """Nothing but what the API says, and what is doctor's own, is kept; of one container there is no word."""
    found = look(Machine(), NOWHERE, records())
    assert "is no process here" in found.whole
    assert left(found) == {"api/ping", "api/version", "api/inspect/a1", "engine/places", "engine/client"}
    kept = applied(found, records())
    assert kept["netns/host/links"].status == "not-run"
    assert "netns/4026532000/links" not in kept
    assert "store/containers/a1/hosts" not in kept


def test_podman() -> None:
    """It speaks Docker's API, and is another engine."""
    found = look(Machine(), NOWHERE, records(version=b'{"Components":[{"Name":"Podman Engine"}]}'))
    assert "podman" in found.whole
    assert "net/nft" not in left(found)


def test_hidden_processes() -> None:
    """Who may not see the processes of others is on this host all the same."""
    found = look(Machine("22 28 0:20 / /proc rw,relatime - proc proc rw,hidepid=invisible\n"), NOWHERE, records())
    assert "hidepid" in found.processes
    assert not found.whole
    assert {"netns/host/links", "net/nft", "store/overlay2"} <= left(found)
    assert not {"proc/processes", "netns/index", "cgroup/containers"} & left(found)


@pytest.mark.parametrize("options", ["rw", "rw,hidepid=0", "rw,hidepid=off"])
def test_processes_that_are_not_hidden(options: str) -> None:
    """An ordinary /proc hides nothing."""
    assert look(Machine(f"22 28 0:20 / /proc rw - proc proc {options}\n"), NOWHERE, records()).whole


def test_this_host() -> None:
    """A daemon that is a process here, in our namespaces and with our files, and one that does not answer."""
    assert not look(LocalHost(), replace(NOWHERE, pid=os.getpid()), records()).elsewhere
    silent = records()
    silent["api/ping"] = Record("api/ping", "api", "/_ping", "timeout")
    assert not look(Machine(), NOWHERE, silent).elsewhere


class Contained(LocalHost):
    """A container that shares the processes of its host, and is not privileged."""

    def __init__(self, mark: str) -> None:
        """Have the file that tells it."""
        super().__init__()
        self.mark = mark

    def lstat(self, path: str) -> os.stat_result:
        """Show that file."""
        if path in {"/.dockerenv", "/run/.containerenv"} and path != self.mark:
            raise FileNotFoundError(path)
        return super().lstat("/" if path == self.mark else path)

    def readlink(self, path: str) -> str:
        """Show no root of others."""
        if path == "/proc/1/root":
            raise PermissionError(path)
        return super().readlink(path)


@pytest.mark.parametrize("mark", ["/.dockerenv", "/run/.containerenv"])
def test_a_container_that_may_not_look(mark: str) -> None:
    """What cannot be compared is not believed in a container, and is on a host."""
    here = replace(NOWHERE, pid=1)
    assert "in a container" in look(Contained(mark), here, records()).whole
    assert not look(Contained(""), here, records()).whole


def test_no_fact_is_made_of_it() -> None:
    """Whoever asks for a fact is told why there is none; a record that means ill says nothing."""
    meta = Meta("", "", "", "", 0.0, 0, 0, "")
    snapshot = Snapshot(meta, applied(look(Machine(), NOWHERE, records()), records()))
    registry = load(plugins=False)
    for wanted in registry.facts:
        if wanted.__name__ != "Places":
            with pytest.raises(EvidenceMissing, match="is no process here"):
                Facts(registry, snapshot).get(wanted)
    for data in (b"", b"[]", b'{"whole":1}', b"\xff", b"[" * 100_000):
        held = msgspec.structs.replace(snapshot.records["engine/vantage"], data=data)
        assert whole(replace(snapshot, records={"engine/vantage": held})) == ""
