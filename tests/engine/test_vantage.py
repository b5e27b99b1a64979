"""Where doctor and dockerd do not share a host: what is read there is no evidence, and nothing is told of the engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.enginehost import IMAGE, EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

ALONE = ("unshare", "--pid", "--fork", "--mount-proc")
"""A pid namespace of its own, with the engine's socket, network and files: as `docker run --net host -v /run/docker.sock`."""

ROOT = """
mkdir -p /tmp/root && mount -t tmpfs none /tmp/root && cd /tmp/root && mkdir up work all
mount -t overlay -o lowerdir=/,upperdir=up,workdir=work none all
for one in proc run dev sys; do mount --rbind /$one all/$one; done
mkdir -p all/var/lib/docker
exec chroot all doctor check --format json
"""
"""Files of its own, with the engine's processes, network and socket: as `docker run --pid host --net host -v /run:/run`."""

HIDDEN = """
mount -t proc -o hidepid=2 proc /proc
exec setpriv --reuid 1000 --regid 1000 --groups $(stat -c %g /run/docker.sock) doctor check --format json
"""


def report(done: CompletedProcess[str]) -> dict[str, Any]:
    """Give the report of a run that could not know everything, and found nothing."""
    assert done.returncode == 3, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [one["code"] for one in found["findings"] if one["severity"] != "info"] == []
    return found


def reasons(found: dict[str, Any]) -> set[str]:
    """Give why checks could not be answered."""
    return {one["reason"] for one in found["outcomes"] if one["outcome"] == "unknown"}


@pytest.fixture(scope="module")
def shop() -> Iterator[EngineHost]:
    """A host with two networks and a published port, and nothing wrong."""
    with EngineHost.up(suite="sid") as host:
        host.docker("network", "create", "shop")
        host.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
        host.docker("run", "-d", "--name", "db", "--network", "shop", IMAGE, "serve")
        assert host.doctor("check").returncode == 0
        yield host


def test_no_process_of_it(shop: EngineHost) -> None:
    """The socket answers, and dockerd is no process here: not a word on its containers, from no command."""
    why = "what answers at /run/docker.sock is no process here"
    found = report(shop.run(*ALONE, "doctor", "check", "--format", "json", check=False))
    (reason,) = reasons(found)
    assert reason.startswith(f"this host: {why}")
    for words in (("trace", "web", "db"), ("why", "web"), ("reach",), ("rules", "--missing"), ("layers", "verify")):
        done = shop.run(*ALONE, "doctor", *words, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"doctor: {why}")
    done = shop.run(*ALONE, "doctor", "collect", "-o", "/tmp/elsewhere.tar.gz", check=False)
    assert done.returncode == 3
    assert why in done.stderr
    assert reasons(report(shop.doctor("check", "/tmp/elsewhere.tar.gz", "--format", "json"))) == {reason}


BINDS = ("/run/docker.sock:/run/docker.sock", *(f"/{one}:/{one}:ro" for one in ("usr", "opt", "lib", "lib64")))


@pytest.mark.parametrize("shared", [(), ("--net", "host"), ("--pid", "host"), ("--pid", "host", "--net", "host")])
def test_a_container(shop: EngineHost, shared: tuple[str, ...]) -> None:
    """In a real container with the engine's socket, whatever it shares with its host besides."""
    binds = [word for bind in BINDS for word in ("-v", bind)]
    python = ("--entrypoint", "/opt/doctor/bin/python3", IMAGE, "-m", "doctor", "check", "--format", "json")
    (reason,) = reasons(report(shop.run("docker", "run", "--rm", *shared, *binds, *python, check=False)))
    assert reason.startswith("this host: ")


def test_other_files(shop: EngineHost) -> None:
    """Its processes are seen, and its data root is not the directory that bears its name here."""
    (reason,) = reasons(report(shop.run("unshare", "--mount", "sh", "-ec", ROOT, check=False)))
    assert "has another /var/lib/docker than is read here" in reason


def test_another_network(shop: EngineHost) -> None:
    """Links and rules are of another namespace: unknown, and how to see its own; its files are judged."""
    found = report(shop.run("unshare", "--net", "doctor", "check", "--format", "json", check=False))
    assert all("nsenter -t" in one and "is in another network namespace" in one for one in reasons(found))
    outcomes = {one["code"]: one["outcome"] for one in found["outcomes"]}
    assert outcomes["NET009"] == outcomes["NET021"] == outcomes["NET034"] == "unknown"
    assert outcomes["LAY002"] == outcomes["NSP001"] == "pass"
    pid = str(shop.dockerd_pid())
    assert shop.run("unshare", "--net", "nsenter", "-t", pid, "-n", "doctor", "check", check=False).returncode == 0


def test_hidden_processes(shop: EngineHost) -> None:
    """Where /proc hides the processes of others, a container whose process is not seen has not lost it."""
    found = report(shop.run("unshare", "--mount", "sh", "-ec", HIDDEN, check=False))
    assert any("hidepid" in one for one in reasons(found))
