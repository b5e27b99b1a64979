"""Docker as a service of systemd: what only a host with systemd as pid 1 can show.

The hosts of the other tests have an init of their own. Here systemd is started inside of one, as pid 1 of a namespace of
processes, with the control groups of version 2 alone: the systemd of the suite sid takes no others. Everything else is the
host's: its root, its network, its package docker.io with its units.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.enginehost import IMAGE, EngineHost

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.enginehost import Command

_BOOT = """
umount -R /sys/fs/cgroup
exec unshare --fork --pid --mount --cgroup --kill-child sh -ec '
mount --make-rshared /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
exec env container=doctor /lib/systemd/systemd --unit=basic.target
'
"""
DROP_IN = "/etc/systemd/system/docker.service.d/override.conf"
NO_CONTROLLERS = {"CGR002"}
"""What is true of these hosts beside: the machine's version 1 holds the controllers."""


class Systemd:
    """A host that systemd runs."""

    def __init__(self, host: EngineHost, pid: str) -> None:
        """Take systemd's pid in the host."""
        self.host, self.pid = host, pid

    def run(self, *argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in its namespaces."""
        return self.host.run("nsenter", "-t", self.pid, "-a", "--", *argv, check=check, stdin=stdin)

    def sh(self, script: str) -> str:
        """What a shell script prints."""
        return self.run("sh", "-ec", script).stdout

    def check(self) -> dict[str, Any]:
        """Give the report of doctor check."""
        found: dict[str, Any] = json.loads(self.run("doctor", "check", "--format", "json", check=False).stdout)
        return found

    def runs(self) -> bool:
        """Whether dockerd answers."""
        return self.run("docker", "version", "-f", "{{.Server.Version}}", check=False).returncode == 0


@pytest.fixture(scope="module")
def host() -> Iterator[Systemd]:
    """A host of 28.5 whose dockerd was started by systemd, with one container."""
    with EngineHost.up(suite="sid") as made:
        made.docker("save", "-o", "/root/image.tar", IMAGE)
        made.stop_dockerd()
        running = made.spawn("sh", "-ec", _BOOT)
        booted = Systemd(made, _booted(made, running))
        booted.run("systemctl", "start", "docker")
        booted.run("docker", "run", "-d", "--name", "web", "--restart", "always", IMAGE, "serve")
        yield booted
        running.kill()


def _booted(host: EngineHost, running: Command) -> str:
    """Wait until systemd has started what belongs to every host; its pid."""
    for _ in range(200):
        pid = host.run("pgrep", "-x", "systemd", check=False).stdout.split()
        if pid:
            asked = host.run("nsenter", "-t", pid[0], "-a", "--", "systemctl", "is-active", "basic.target", check=False)
            if asked.stdout == "active\n":
                return pid[0]
        time.sleep(0.1)
    raise AssertionError(f"systemd did not boot: {running.stdout}{running.stderr}")


def causes(found: dict[str, Any]) -> list[str]:
    """Give the codes of the causes, but for those that are always true here."""
    return [one["code"] for one in found["diagnoses"] if one["code"] not in NO_CONTROLLERS]


def carry_out(host: Systemd, remedy: dict[str, Any]) -> None:
    """Do what a cure says, as printed."""
    for step in remedy["steps"]:
        assert step["type"] == "command", step
        host.run(*step["argv"], stdin=step.get("stdin") or None)


def test_a_healthy_service_is_healthy(host: Systemd) -> None:
    """Started by its unit, in its own scope: nothing is wrong, and a cure would speak to systemd."""
    found = host.check()
    assert causes(found) == [], found["findings"]
    assert host.run("docker", "info", "-f", "{{.CgroupDriver}} {{.CgroupVersion}}").stdout == "systemd 2\n"


@pytest.mark.proves("CGR003")
def test_groups_beside_systemd_are_told(host: Systemd) -> None:
    """Somebody chose cgroupfs: on version 2 that is a warning, and gone with the driver systemd."""
    assert "CGR003" not in causes(host.check())
    host.sh(
        """echo '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}' >/etc/docker/daemon.json; systemctl restart docker"""
    )
    assert host.run("docker", "info", "-f", "{{.CgroupDriver}}").stdout == "cgroupfs\n"
    found = host.check()
    assert causes(found) == ["CGR003"]
    (cure,) = next(one["remedy"]["steps"] for one in found["diagnoses"] if one["code"] == "CGR003")
    assert '"exec-opts": ["native.cgroupdriver=systemd"]' in cure["text"]
    host.sh(
        """echo '{"exec-opts": ["native.cgroupdriver=systemd"]}' >/etc/docker/daemon.json; systemctl restart docker"""
    )
    assert host.run("docker", "info", "-f", "{{.CgroupDriver}}").stdout == "systemd\n"
    assert causes(host.check()) == []


_TWO = "[Service]\\nExecStart=/usr/sbin/dockerd -H fd:// --debug\\n"


@pytest.mark.proves("DMN014")
@pytest.mark.parametrize(
    ("make", "subject", "says"),
    [
        ("systemctl stop docker; systemctl mask docker", "is masked", "masked"),
        (
            f"mkdir -p $(dirname {DROP_IN}); printf '{_TWO}' >{DROP_IN}",
            "more than one ExecStart",
            "more than one ExecStart",
        ),
    ],
    ids=["masked", "two-starts"],
)
def test_a_unit_that_does_not_start_is_named_and_healed(host: Systemd, make: str, subject: str, says: str) -> None:
    """Systemd refuses: what it says is what is told, and the cure as printed starts dockerd again."""
    host.sh(f"{make}; systemctl daemon-reload; systemctl stop docker docker.socket || true")
    refused = host.run("systemctl", "start", "docker", check=False)
    assert refused.returncode, "the fault changed nothing"
    said = refused.stderr + host.run("systemctl", "status", "docker", "--no-pager", check=False).stdout
    assert says in said, said
    assert not host.runs()
    found = host.check()
    assert causes(found) == ["DMN014"], found["findings"]
    cause = next(one for one in found["diagnoses"] if one["code"] == "DMN014")
    assert subject in cause["title"]
    carry_out(host, cause["remedy"])
    assert host.runs()
    assert causes(host.check()) == []
    host.sh(f"rm -f {DROP_IN}; systemctl daemon-reload")


@pytest.mark.proves("DMN014")
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("/bin/sh -c 'kill -SEGV $$$$'", "it crashed"),
        ("/usr/local/bin/dockerd -H fd://", "systemd could not run what its ExecStart names (203/EXEC)"),
    ],
    ids=["crashed", "not-there"],
)
def test_a_service_that_was_given_up_is_told(host: Systemd, command: str, says: str) -> None:
    """Tried until systemd gave it up: what ended it is told, not that it was tried too often; the cure starts it then."""
    text = f"[Service]\nRestartSec=0\nExecStart=\nExecStart={command}\n"
    host.sh(f"mkdir -p $(dirname {DROP_IN})")
    host.run("tee", DROP_IN, stdin=text)
    host.sh("systemctl daemon-reload; systemctl reset-failed docker; systemctl stop docker.socket")
    host.sh("systemctl restart docker || true")
    for _ in range(100):
        if host.run("systemctl", "show", "-P", "Result", "docker").stdout == "start-limit-hit\n":
            break
        time.sleep(0.1)
    assert not host.runs()
    found = host.check()
    assert causes(found) == ["DMN014"], found["findings"]
    cause = next(one for one in found["diagnoses"] if one["code"] == "DMN014")
    assert says in cause["title"]
    host.sh(f"rm {DROP_IN}; systemctl daemon-reload")
    note, *steps = cause["remedy"]["steps"]
    assert "find out why first" in note["text"]
    carry_out(host, {"steps": steps})
    assert host.runs()
    assert causes(host.check()) == []
