"""How fast a container of ours is made and gone, against runc; and how fast a host. Run as `python -m bench.runtime`, as root.

Both are given the configuration that `runc spec` writes, without a terminal; neither has seccomp in it. By turns, so that
what else the machine does meets both. Ours is create, start, wait and delete inside one process that has imported all;
runc's is `runc run`. Control groups are made by runc and not by us, where they are opt-in.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from doctor.docker_api import DockerApi
from doctor.linux import mounting, syscalls
from doctor.runtime import oci
from doctor.runtime.container import Container
from doctor.runtime.host import Lab

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 40


def _processor() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def _taken(function: Callable[[], object]) -> tuple[float, float]:
    began, used = time.perf_counter(), _processor()
    function()
    return (time.perf_counter() - began) * 1000, (_processor() - used) * 1000


def _line(name: str, taken: list[tuple[float, float]]) -> str:
    walls, used = ([one[at] for one in taken] for at in (0, 1))
    middle, least, cpu = statistics.median(walls), min(walls), statistics.median(used)
    return f"{name:28} median {middle:6.1f} ms, least {least:6.1f}, processor {cpu:6.1f}"


def _bundle(place: Path) -> oci.Config:
    """Make a bundle with busybox and what `runc spec` says."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (place / "rootfs" / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "no busybox"
    shutil.copy(busybox, place / "rootfs/bin/busybox")
    (place / "rootfs/bin/true").symlink_to("busybox")
    subprocess.run(["runc", "spec"], cwd=place, check=True)
    made = oci.decode((place / "config.json").read_bytes())
    made = msgspec.structs.replace(made, process=msgspec.structs.replace(made.process, args=("true",), terminal=False))
    (place / "config.json").write_bytes(oci.encode(made))
    return made


def _ours(made: oci.Config, place: Path) -> None:
    one = Container.create(made, id="bench", bundle=str(place))
    one.start()
    assert one.wait() == 0
    one.delete()


def containers() -> float:
    """Compare with runc; gives how many times faster the median is, 0 where there is no runc."""
    if shutil.which("runc") is None:
        print("container: skipped, no runc here (package runc)")
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made = _bundle(place)
        ours: list[tuple[float, float]] = []
        runcs: list[tuple[float, float]] = []
        _ours(made, place)
        gc.freeze()  # what a process keeps for good: its children share the pages
        gc.disable()
        for number in range(ROUNDS):
            ours.append(_taken(lambda: _ours(made, place)))
            argv = ["runc", "run", "-b", folder, f"bench-{os.getpid()}-{number}"]
            runcs.append(_taken(lambda argv=argv: subprocess.run(argv, check=True)))
    print(_line("container, ours", ours))
    print(_line("container, runc run", runcs))
    ratio = statistics.median(one[0] for one in runcs) / statistics.median(one[0] for one in ours)
    used = statistics.median(one[1] for one in runcs) / statistics.median(one[1] for one in ours)
    print(f"container: runc takes {ratio:.1f} times as long, and {used:.1f} times the processor")
    return ratio


def hosts() -> None:
    """Say how long a host takes to be up, and to be gone."""
    up: list[tuple[float, float]] = []
    down: list[tuple[float, float]] = []
    for _ in range(ROUNDS // 2):
        held: list[Lab] = []
        up.append(_taken(lambda held=held: held.append(Lab.up(f"bench-{os.getpid()}"))))
        down.append(_taken(held[0].down))
    print(_line("host up, without a daemon", up))
    print(_line("host down", down))


def _served(count: int) -> tuple[float, float]:
    """Give the milliseconds from `Lab.up` to the last answer of `count` containers with DNS, and the lab's processor time."""
    from doctor.runtime.daemon import service
    from doctor.runtime.daemon.serve import Start
    from doctor.runtime.model import Attachment, ContainerSpec, NetworkSpec

    shop = (Attachment("shop"),)
    made = tuple(ContainerSpec(f"c{n}", "busybox", command=("serve", "80"), networks=shop) for n in range(count))
    start = Start(argv=service.ARGV, networks=(NetworkSpec("shop"),), containers=made)
    began = time.perf_counter()
    with Lab.up(f"bench-{os.getpid()}", services=(service.service(start),), files=service.programs("28")) as lab:
        asked = lab.fork(lambda: _answered(count))
        assert os.waitpid(asked, 0)[1] == 0, "not every container answers"
        taken = (time.perf_counter() - began) * 1000
        return taken, _of_lab(lab)


def _answered(count: int) -> int:
    """Ask the API for all containers, and each of them for its page; 0 when all answer within ten seconds."""
    listed = json.loads(DockerApi("unix:///run/docker.sock").get("/containers/json", 3.0)[1])
    waiting = {one["NetworkSettings"]["Networks"]["shop"]["IPAddress"] for one in listed}
    until = time.monotonic() + 10
    while waiting and time.monotonic() < until:
        for address in list(waiting):
            with suppress(OSError), socket.create_connection((address, 80), timeout=1) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if sock.recv(16):
                    waiting.discard(address)
        time.sleep(0.001)
    return len(waiting) + abs(count - len(listed))


def _of_lab(lab: Lab) -> float:
    """Give the milliseconds that processes of a lab's host ran, and children that have ended; those of containers are apart."""
    space = Path(f"/proc/{lab.pid}/ns/pid").stat().st_ino
    found = 0.0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "ns/pid").stat().st_ino == space:
                found += int((place / "schedstat").read_text().split()[0]) / 1e6
                ended = (place / "stat").read_text().rpartition(")")[2].split()[13:15]
                found += sum(map(int, ended)) * 1000 / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return found


def daemons() -> None:
    """Say how long hosts with containers take until each answers; the limits are 100 ms for three and 450 ms for fifty."""
    _served(1)
    gc.freeze()
    for count, rounds in ((3, 10), (50, 4)):
        print(_line(f"host with {count} containers", [_served(count) for _ in range(rounds)]))


def commands() -> None:
    """Compare whole commands, as they are typed, where there are others."""
    argvs = {
        "doctor runtime run": [sys.executable, "-m", "doctor", "runtime", "run", "--rm", "busybox", "true"],
        "podman run": ["podman", "run", "--rm", "busybox", "true"],
        "docker run": ["docker", "run", "--rm", "busybox", "true"],
    }
    for name, argv in argvs.items():
        if subprocess.run(argv, check=False, capture_output=True).returncode:
            print(f"{name}: skipped, it does not run here")
            continue
        print(
            _line(
                name,
                [_taken(lambda argv=argv: subprocess.run(argv, check=True, capture_output=True)) for _ in range(5)],
            )
        )


if __name__ == "__main__":
    syscalls.unshare(syscalls.CLONE_NEWNS)
    mounting.propagation("/", mounting.MS_REC | mounting.MS_PRIVATE)
    containers()
    hosts()
    daemons()
    if "commands" in sys.argv:
        commands()
