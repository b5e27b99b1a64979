"""Whom the docker command asks: another daemon, nobody (DMN030), or one that speaks TLS alone and is asked in TLS."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.faults.tls import FOLDER, issue
from tests.enginehost import HOST_IP, EngineHost

if TYPE_CHECKING:
    from collections.abc import Mapping

FAR = "tcp://127.0.0.1:9"


def report(host: EngineHost, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `doctor check`, and give the report."""
    found: dict[str, Any] = json.loads(host.doctor("check", "--format", "json", env=env).stdout)
    return found


def told(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Give code and subject of what is not merely noted."""
    return [(one["code"], one["subject"]) for one in found["findings"] if one["severity"] != "info"]


def asks(host: EngineHost, env: Mapping[str, str] | None = None) -> bool:
    """Whether `docker ps` is answered."""
    return host.run("docker", "ps", "-q", check=False, env=env).returncode == 0


@pytest.mark.proves("DMN030")
def test_another_daemon(suite: str) -> None:
    """A variable and a context that lead elsewhere are told, those that lead here are not; the cure is what it says."""
    with EngineHost.up(suite=suite) as host:
        assert asks(host)
        assert told(report(host)) == []
        far = {"DOCKER_HOST": FAR}
        assert not asks(host, far)
        assert told(report(host, far)) == [("DMN030", "DOCKER_HOST")]
        here = {"DOCKER_HOST": "unix:///var/run/docker.sock"}
        assert asks(host, here)
        assert told(report(host, here)) == []
        host.docker("context", "create", "far", "--docker", f"host={FAR}")
        host.docker("context", "use", "far")
        assert not asks(host)
        found = report(host)
        assert told(found) == [("DMN030", "context far")]
        (finding,) = (one for one in found["findings"] if one["code"] == "DMN030")
        for step in finding["remedy"]["steps"]:
            host.run(*step["argv"])
        assert asks(host)
        assert told(report(host)) == []


def test_a_daemon_of_tls_alone() -> None:
    """Without a certificate that it takes nothing is known, and no fault is seen; with one, all is."""
    with EngineHost.up(suite="sid") as host:
        issue()(host)
        files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
        held = {key: f"{FOLDER}/{name}" for key, name in files.items()}
        config = {"hosts": [f"tcp://{HOST_IP}:2376"], "tlsverify": True, **held}
        host.write("/etc/docker/daemon.json", json.dumps(config))
        host.restart_dockerd()
        host.sh("rm -f /run/docker.sock; mkdir /root/certificates")
        for name, file in (("ca", "ca"), ("cert", "client"), ("key", "client-key")):
            host.sh(f"cp {FOLDER}/{file}.pem /root/certificates/{name}.pem")
        found = report(host)
        assert "DMN016" not in {one["code"] for one in found["findings"]}
        (asked,) = (one for one in found["outcomes"] if one["code"] == "DMN016")
        assert (asked["outcome"], "asks for a client's certificate" in asked["reason"]) == ("unknown", True)
        assert ("DMN030", "docker.sock") in told(found)
        assert not asks(host)
        there = {
            "DOCKER_HOST": f"tcp://{HOST_IP}:2376",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": "/root/certificates",
        }
        assert asks(host, there)
        assert "DMN030" not in {code for code, _ in told(report(host, there))}
        found = report(host, {"DOCKER_CERT_PATH": "/root/certificates"})
        (asked,) = (one for one in found["outcomes"] if one["code"] == "DMN016")
        assert asked["outcome"] == "pass"
        assert found["host"]["engine"].startswith("28.")
