"""A host of our own: up, entered, asked, down."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor.linux.syscalls import klogctl_read
from doctor.runtime.host import Lab, LabError, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


def _greet(arguments: list[str]) -> int:
    print("hello", *arguments, flush=True)  # noqa: T201 - a program of the host
    return 3


def _serve(ready: int) -> None:
    os.write(ready, b'{"ok": true}')
    os.close(ready)
    while True:
        time.sleep(60)


def _refuse(ready: int) -> int:
    os.write(ready, b'{"error": "failed to start daemon: no"}')
    return 1


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Give a host with a daemon and a program."""
    service = Service("docker", ("/usr/bin/dockerd", "--debug"), _serve, pidfile="/run/docker-ssd.pid")
    with Lab.up(f"t{os.getpid()}", services=[service], builtins={"docker": _greet}) as up:
        yield up


def test_a_command_runs_on_the_host_and_beside_it(lab: Lab) -> None:
    """Each has its own address, and they reach each other."""
    assert b"198.51.100.2/24" in lab.run(("ip", "-br", "addr")).stdout
    assert b"203.0.113.7/32" in lab.outside.run(("ip", "-br", "addr")).stdout


def test_exit_codes_are_those_of_a_shell(lab: Lab) -> None:
    """What ends by a signal, is not there, or cannot be executed."""
    codes = [lab.run(argv).returncode for argv in (("sh", "-c", "kill -9 $$"), ("no-such-program",), ("/etc/passwd",))]
    assert codes == [137, 127, 126]


def test_stdin_and_both_outputs_are_the_callers(lab: Lab) -> None:
    """Bytes go in and out as they are."""
    done = lab.run(("sh", "-c", "cat; echo wrong >&2; exit 4"), stdin=b"\x00\xff")
    assert done == (4, b"\x00\xff", b"wrong\n")


def test_a_program_of_ours_is_a_command_of_the_host(lab: Lab) -> None:
    """The launcher hands it over to the holder, which has it imported."""
    assert lab.run(("sh", "-c", "docker ps -a")) == (3, b"hello ps -a\n", b"")


def test_a_service_has_the_name_of_the_daemon_and_starts_again(lab: Lab) -> None:
    """`service docker restart` is another process of the same name."""
    before = lab.services()["docker"]
    assert lab.run(("tr", "\\0", " ", f"/proc/{before}/cmdline")).returncode in {0, 1}
    line = lab.run(("cat", f"/proc/{before}/cmdline", f"/proc/{before}/comm")).stdout
    assert line == b"/usr/bin/dockerd\0--debug\0dockerd\n"
    assert lab.run(("service", "docker", "restart")).returncode == 0
    after = lab.services()["docker"]
    assert after not in {0, before}
    assert lab.run(("cat", "/run/docker-ssd.pid")).stdout == f"{after}\n".encode()


def test_the_machine_s_sysctls_are_read_only(lab: Lab) -> None:
    """Those of the network are the lab's own."""
    assert lab.run(("sh", "-c", "echo 1 > /proc/sys/vm/swappiness")).returncode != 0
    assert lab.run(("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")).returncode == 0


def test_the_kernel_s_log_is_not_the_machine_s(lab: Lab) -> None:
    """A lab has none, and reading it is no error."""
    pid = lab.fork(lambda: 0 if klogctl_read() == b"" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_function_of_the_caller_runs_in_the_lab(lab: Lab) -> None:
    """It sees the lab's processes, and its exit code comes back."""
    pid = lab.fork(lambda: 7 if str(Path("/proc/self").readlink()) == str(os.getpid()) else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_second_of_the_same_name_is_refused(lab: Lab) -> None:
    """And the first goes on."""
    with pytest.raises(LabError, match="is up already"):
        Lab.up(lab.name)
    assert lab.run(("true",)).returncode == 0


def test_a_daemon_that_does_not_start_is_the_error() -> None:
    """Its own words; the lab is gone."""
    with pytest.raises(LabError, match="failed to start daemon: no"):
        Lab.up(f"f{os.getpid()}", services=[Service("docker", ("dockerd",), _refuse)])
    assert f"f{os.getpid()}" not in Lab.names()
