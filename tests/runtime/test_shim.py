"""Shims: found by their command line, they keep output and outlive the daemon that made them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from doctor.runtime import oci, shim
from doctor.runtime.container import ContainerError
from doctor.runtime.host import Lab, Service
from doctor.runtime.jsonlog import timestamp
from tests.runtime.conftest import make_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

replace = msgspec.structs.replace
ROOT = "/srv/root"
PATH = ("PATH=/bin",)


def config(*args: str, terminal: bool = False) -> oci.Config:
    """Give docker's defaults for a command."""
    made = oci.default(args, rootfs=ROOT)
    return replace(made, process=replace(made.process, terminal=terminal, console_size=oci.ConsoleSize(24, 80)))


def make(name: str, *args: str, **options: object) -> shim.Shim:
    """Make a container and start it."""
    made = config(*args, terminal=bool(options.pop("terminal", False)))
    prepared = shim.prepare(made, id=name, directory=f"/run/t/{name}", log=f"/var/log/{name}.log", **options)
    held = prepared.connect(prepared.fork())
    held.created()
    held.start()
    return held


def logged(name: str) -> list[tuple[str, str]]:
    """Give the log of a container: stream and text of each line."""
    lines = Path(f"/var/log/{name}.log").read_text(encoding="utf-8").splitlines()
    return [(one["stream"], one["log"]) for one in map(json.loads, lines)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Give a host with a root file system for containers."""
    with Lab.up(f"s{os.getpid()}") as up:
        pid = up.fork(lambda: make_root(Path(ROOT)) and None)
        assert os.waitpid(pid, 0)[1] == 0
        yield up


def inside(lab: Lab, function: Callable[[], object]) -> None:
    """Call a function in the lab, and see that it raised nothing."""

    def whole() -> int:
        try:
            function()
        except BaseException:  # noqa: BLE001 - a child leaves here
            traceback.print_exc(file=sys.__stderr__)
            return 1
        return 0

    pid = lab.fork(whole)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.root
def test_output_is_logged_by_line_and_stream(lab: Lab) -> None:
    """What is not ended by a newline is kept too, what is long is cut, what is no text is replaced."""

    def look() -> None:
        one = make("log", "sh", "-c", "echo '<a> & b'; printf '\\377end' >&2; exit 3")
        code, at = one.exit()
        assert code == 3
        assert at.endswith("Z")
        assert sorted(logged("log")) == [("stderr", "\ufffdend"), ("stdout", "<a> & b\n")]
        assert "\\u003ca\\u003e \\u0026 b" in Path("/var/log/log.log").read_text(encoding="utf-8")
        assert json.loads(Path("/run/t/log/exit").read_text(encoding="utf-8")) == {"code": 3, "at": at}
        one.delete()

    inside(lab, look)


@pytest.mark.root
def test_who_attaches_gets_what_comes_and_gives_input(lab: Lab) -> None:
    """Frames as the engine's; the end of his input is the end of the container's."""

    def look() -> None:
        prepared = shim.prepare(config("cat"), id="cat", directory="/run/t/cat", open_stdin=True)
        held = prepared.connect(prepared.fork())
        held.created()
        first, second = held.attach(), held.attach()
        held.start()
        first.sendall(b"typed\n")
        frame = b"\x01\0\0\0\0\0\0\x06typed\n"
        assert first.recv(100) == frame
        assert second.recv(100) == frame
        first.shutdown(1)
        assert held.exit()[0] == 0
        assert first.recv(100) == b""
        held.delete()

    inside(lab, look)


@pytest.mark.root
def test_a_terminal_and_its_size(lab: Lab) -> None:
    """Its output is in frames too, and is logged."""

    def look() -> None:
        held = make("tty", "sh", "-c", "tty; read x; stty size", terminal=True)
        held.resize(33, 99)
        end = held.attach()
        end.sendall(b"\n")
        assert held.exit()[0] == 0
        assert ("stdout", "/dev/pts/0\r\n") in logged("tty")
        assert ("stdout", "33 99\r\n") in logged("tty")
        held.delete()

    inside(lab, look)


@pytest.mark.root
def test_exec_is_told_of_until_its_end(lab: Lab) -> None:
    """Its pid, its exit code; a program that is not there is an error with docker's code."""

    def look() -> None:
        held = make("exec", "sleep", "1000")
        reading, writing = os.pipe()
        one = held.exec(oci.Process(("sh", "-c", "echo in; exit 5"), env=PATH), (0, writing, writing))
        os.close(writing)
        assert os.read(reading, 100) == b"in\n"
        assert one.wait() == 5
        with pytest.raises(ContainerError, match="executable file not found") as told:
            held.exec(oci.Process(("nope",), env=PATH))
        assert told.value.code == 127
        terminal = held.exec(oci.Process(("sh", "-c", "sleep 0.2; stty size"), env=PATH), tty=True)
        terminal.resize(40, 120)
        assert terminal.wait() == 0
        assert b"40 120" in os.read(terminal.console, 100)
        held.delete()

    inside(lab, look)


@pytest.mark.root
def test_a_container_that_cannot_be_made_is_told(lab: Lab) -> None:
    """And nothing runs."""

    def look() -> None:
        prepared = shim.prepare(config("nope"), id="no", directory="/run/t/no")
        held = prepared.connect(prepared.fork())
        with pytest.raises(ContainerError) as told:
            held.created()
        assert told.value.code == 127
        held.delete()
        with pytest.raises(ContainerError):
            shim.reconnect("/run/t/no")

    inside(lab, look)


def _daemon(ready: int) -> int:
    Path("/run/t").mkdir(exist_ok=True)
    make("lives", "sh", "-c", "while :; do echo still; sleep 0.02; done")
    os.write(ready, b'{"ok": true}')
    os.close(ready)
    while True:
        time.sleep(1000)


def _daemon_again(ready: int) -> int:
    held = shim.reconnect("/run/t/lives")
    state = held.state()
    said = {"ok": state["state"] == "running", "error": "" if state["state"] == "running" else str(state)}
    os.write(ready, json.dumps(said).encode())
    os.close(ready)
    held.kill(signal.SIGKILL)
    Path("/run/t/told").write_text(str(held.exit()[0]), encoding="utf-8")
    held.delete()
    return 0


@pytest.mark.root
def test_containers_outlive_the_daemon() -> None:
    """It is killed; its container runs and is logged on; the next daemon finds it, and hears of its end."""
    service = Service("docker", ("/usr/bin/dockerd",), _daemon, _daemon_again)
    with Lab.up(f"l{os.getpid()}", services=[_rooted(service)]) as lab:
        lab.run(("kill", "-9", str(lab.services()["docker"])))
        before = lab.run(("wc", "-l", "/var/log/lives.log")).stdout
        line = lab.run(("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout
        assert b"/usr/bin/containerd-shim-runc-v2 -namespace moby -id lives -address" in line
        parents = lab.run(("sh", "-c", "grep -h PPid $(grep -l containerd-shim /proc/[0-9]*/status)")).stdout
        assert parents == b"PPid:\t1\n"
        time.sleep(0.2)
        assert lab.run(("wc", "-l", "/var/log/lives.log")).stdout != before
        assert lab.service("docker", "start") > 0
        until = time.monotonic() + 5
        while lab.run(("cat", "/run/t/told")).stdout != b"137" and time.monotonic() < until:
            time.sleep(0.01)
        assert lab.run(("cat", "/run/t/told")).stdout == b"137"
        assert b"containerd-shim" not in lab.run(("sh", "-c", "cat /proc/[0-9]*/comm")).stdout


def _rooted(service: Service) -> Service:
    def main(ready: int) -> object:
        make_root(Path(ROOT))
        return _daemon(ready)

    return service._replace(main=main)


def test_times_are_as_go_writes_them() -> None:
    """No zeros at the end, none at all for a whole second."""
    assert timestamp(1_500_000_000_000_000_000) == "2017-07-14T02:40:00Z"
    assert timestamp(1_500_000_000_123_456_789) == "2017-07-14T02:40:00.123456789Z"
