"""Daemons that did not start, or did not do what their file said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.reported.table import Reported

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

FILE = "/etc/docker/daemon.json"


def _restarted(host: EngineHost, text: str, *args: str) -> None:
    """Write daemon.json and restart: what everybody does, and dockerd does not come back."""
    host.stop_dockerd()
    host.write(FILE, text)
    host.start_dockerd(*args, expect_failure=True)


def _appended(host: EngineHost) -> None:
    """Append to the file once more instead of writing it anew: two values, the first without its bracket."""
    line = '{ "insecure-registries":"192.0.2.7:5000"] }\n'
    _restarted(host, line + line.replace('"192', '["192'))


def _socket_directory(host: EngineHost) -> None:
    """Start a container with the socket mounted while dockerd was down: it made a directory of it."""
    host.stop_dockerd()
    host.sh("rm -f /run/docker.sock; mkdir /run/docker.sock")
    host.start_dockerd(expect_failure=True)


REPORTED = (
    Reported(
        "appended-to-the-file",
        "https://github.com/moby/moby/issues/30183",
        _appended,
        ("DMN001",),
        ("/etc/docker/daemon.json:1",),
    ),
    Reported(
        "directory-for-the-socket",
        "https://github.com/moby/moby/issues/30183",
        _socket_directory,
        ("DMN017",),
        ("a directory stands in the place of the socket", "rmdir /run/docker.sock"),
    ),
    Reported(
        "empty-file",
        "https://github.com/moby/moby/issues/41268",
        lambda h: _restarted(h, "\n"),
        ("DMN001",),
        ("the file is empty",),
        engines=("bookworm",),  # 28.5.2 takes it for one that sets nothing
    ),
    Reported(
        "brace-for-a-bracket",
        "https://github.com/Azure/iotedge/issues/2354",
        lambda h: _restarted(h, '{\n  "dns": [\n    "192.0.2.53",\n    "192.0.2.54"\n  }\n}\n'),
        ("DMN001",),
        ("/etc/docker/daemon.json:5",),
    ),
    Reported(
        "live-restore-twice",
        "https://github.com/docker/docs/issues/7748",
        lambda h: _restarted(h, '{ "live-restore": false }\n', "--live-restore"),
        ("DMN003",),
        ("live-restore",),
    ),
    Reported(
        "hosts-of-the-unit",
        "https://github.com/moby/moby/issues/34104",
        lambda h: _restarted(
            h,
            '{"hosts": ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2376"]}\n',
            "-H",
            "unix:///var/run/docker.sock",
        ),
        ("DMN003",),
        ("hosts",),
    ),
)
