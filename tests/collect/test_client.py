"""Where the docker command goes: variables and contexts are found as docker(1) finds them, and nothing else is kept."""

from __future__ import annotations

import json
import pwd
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from doctor import client
from doctor.facts.client import Client
from doctor.facts.client import client as fact
from doctor.host import LocalHost
from doctor.places import CALLER
from doctor.snapshot import Meta, Record, Snapshot

if TYPE_CHECKING:
    from pathlib import Path


def make(home: Path, current: str = "", **contexts: str) -> None:
    """Write what `docker context create` and `docker context use` write."""
    folder = home / ".docker"
    (folder / "contexts/meta").mkdir(parents=True)
    config = {"auths": {"registry.example": {"auth": "a2FybDpzd29yZGZpc2g="}}}
    (folder / "config.json").write_text(json.dumps(config | ({"currentContext": current} if current else {})))
    for name, address in contexts.items():
        place = folder / "contexts/meta" / sha256(name.encode()).hexdigest()
        place.mkdir()
        meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": address, "SkipTLSVerify": False}}}
        (place / "meta.json").write_text(json.dumps(meta))


def ways(text: str) -> Client:
    """What the fact makes of the lines."""
    meta = Meta("1", "h", "6.1", "x86_64", 0.0, 0, 0, "root")
    return fact(Snapshot(meta, {"engine/client": Record("engine/client", "tree", "docker", data=text.encode())}))


@pytest.mark.parametrize(
    ("environ", "by", "address"),
    [
        ({}, "context", "tcp://10.0.0.5:2376"),
        ({"DOCKER_CONTEXT": "b"}, "DOCKER_CONTEXT", "ssh://b.example"),
        ({"DOCKER_CONTEXT": "b", "DOCKER_HOST": "tcp://h:1"}, "DOCKER_HOST", "tcp://h:1"),
        ({"DOCKER_CONTEXT": "default"}, "", ""),
        ({"DOCKER_CONTEXT": "none"}, "DOCKER_CONTEXT", ""),
    ],
)
def test_the_order_is_that_of_docker(environ: dict[str, str], by: str, address: str, tmp_path: Path) -> None:
    """DOCKER_HOST, then DOCKER_CONTEXT, then the current context; users of addresses and logins are not kept."""
    make(tmp_path, "a", a="tcp://10.0.0.5:2376", b="ssh://karl@b.example")
    text = client.read(LocalHost(), {"HOME": str(tmp_path), **environ})
    assert [(one.by, one.address) for one in ways(text).ways] == ([(by, address)] if by else [])
    assert "karl" not in text
    assert "a2FybDpzd29yZGZpc2g" not in text
    assert str(tmp_path) not in text


def test_nothing_is_set(tmp_path: Path) -> None:
    """Without a home, with an empty one, and with logins alone: docker goes to this host, and no line says anything."""
    assert client.read(LocalHost(), {}) == ""
    assert client.read(LocalHost(), {"HOME": str(tmp_path)}) == ""
    make(tmp_path)
    assert client.read(LocalHost(), {"HOME": str(tmp_path)}) == ""


def test_who_called_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contexts of both are read; DOCKER_CONTEXT is only of the shell that runs doctor."""
    own, other = tmp_path / "root", tmp_path / "karl"
    make(own)
    make(other, "a", a="tcp://10.0.0.5:2376")
    entry = pwd.struct_passwd(("karl", "x", 1000, 1000, "", str(other), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"karl": entry}.__getitem__)
    text = client.read(LocalHost(), {"HOME": str(own), "SUDO_USER": "karl"})
    (way,) = ways(text).ways
    assert (way.by, way.whose, way.address) == ("context", CALLER, "tcp://10.0.0.5:2376")
    assert "karl" not in text
    assert client.read(LocalHost(), {"HOME": str(own), "SUDO_USER": "nobody-of-that-name"}) == ""


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    """A socket that a context leads to is looked at."""
    make(tmp_path, "a", a=f"unix://{tmp_path}/gone.sock")
    (way,) = ways(client.read(LocalHost(), {"HOME": str(tmp_path)})).ways
    assert way.why == "no such file or directory"


@pytest.mark.parametrize("text", ["{", "[1]", '{"currentContext": 7}', '{"currentContext": ""}', "[" * 100_000, "\xff"])
def test_hostile_files(text: str, tmp_path: Path) -> None:
    """Whatever stands in the file: no way, and a line that says so where it is no JSON."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(text, encoding="latin-1")
    assert ways(client.read(LocalHost(), {"HOME": str(tmp_path)})).ways == ()


def test_a_fifo_for_a_file(tmp_path: Path) -> None:
    """It is not waited for."""
    import os

    (tmp_path / ".docker").mkdir()
    os.mkfifo(tmp_path / ".docker/config.json")
    found = ways(client.read(LocalHost(), {"HOME": str(tmp_path)}))
    assert found.ways == ()
    assert found.unread
