"""Whatever ends a lab, and whenever: no process, mount, link, rule, socket or file of it is left on the machine.

DOCTOR_KILL_POINTS sets how many points are tried; CI samples a few, 240 were tried for the note.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from doctor.linux import privileges, syscalls
from doctor.runtime import oci, shim
from doctor.runtime.host import Lab, LabError, Service
from tests.runtime import world
from tests.runtime.conftest import make_root

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.root

POINTS = int(os.environ.get("DOCTOR_KILL_POINTS", "40"))


def _daemon(root: str, ready: int) -> int:
    """Make a container, as a daemon would, and keep it."""
    made = oci.default(("sleep", "1000"), rootfs=root)
    prepared = shim.prepare(made, id="c" * 64, directory="/run/bundle", log="/var/log/c.log")
    held = prepared.connect(prepared.fork())
    held.created()
    held.start()
    joined = held.exec(oci.Process(("true",), env=("PATH=/bin",)))
    os.write(ready, b'{"ok": true}')
    os.close(ready)
    joined.wait()
    while True:
        time.sleep(1000)


def _life(root: Path) -> None:
    """Bring a host up, use it, take it down."""
    files = {f"/srv/root/{name}": "" for name in ("proc/x", "dev/x", "sys/x", "tmp/x", "etc/passwd")}
    files["/srv/root/bin/sleep"] = files["/srv/root/bin/true"] = (root / "bin/busybox").read_bytes()
    service = Service("docker", ("/usr/bin/dockerd",), lambda ready: _daemon("/srv/root", ready))
    files["/srv/root/bin/sleep"] = files["/srv/root/bin/true"] = b"#!" + b"/bin/busybox\n"
    files["/srv/root/bin/busybox"] = b"#!"  # rights of a program; what it holds is written below
    lab = Lab.up("point", services=[_filled(service, root)], files=files)
    lab.run(("true",))
    lab.run(("sh", "-c", "ip link add br0 type bridge; iptables -A FORWARD -j DROP; mount -t tmpfs x /mnt; true"))
    os.waitpid(lab.fork(lambda: 0), 0)
    lab.down()


def _filled(service: Service, root: Path) -> Service:
    busybox = (root / "bin/busybox").read_bytes()

    def main(ready: int) -> object:
        Path("/srv/root/bin/busybox").write_bytes(busybox)
        for name in ("sleep", "true"):
            Path(f"/srv/root/bin/{name}").unlink()
            Path(f"/srv/root/bin/{name}").symlink_to("busybox")
        return service.main(ready)

    return service._replace(main=main)


def _victims(before: frozenset[str], caller: int, whom: str) -> list[int]:
    """List whom to kill: the caller, the holder (who has its own first process), or anybody else of the lab."""
    if whom == "caller":
        return [caller]
    others = [int(name) for name in world.state().processes - before if int(name) != caller]
    holders = [pid for pid in others if _inner(pid) == "1"]
    return holders if whom == "holder" else [pid for pid in others if pid not in holders]


def _inner(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    numbers = status.partition("NSpid:")[2].partition("\n")[0].split()
    return numbers[-1] if len(numbers) == 2 else ""


def _at_points(root: Path, upper: str) -> int:
    """Kill at points spread over a life, and compare after each; gives 0, or raises what is left."""
    chance = random.Random(7)  # noqa: S311 - points in time
    before, files, wrote = world.state(), world.rules(), world.written(upper)
    began = time.monotonic()
    _life(root)
    whole = time.monotonic() - began
    assert world.settled(before) == before, "left by a life that nobody disturbed"
    hit = dict.fromkeys(("caller", "holder", "anybody"), 0)
    for number in range(POINTS):
        caller = os.fork()
        if caller == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                _life(root)
            finally:
                os._exit(0)
        time.sleep(whole * 1.1 * (number + chance.random()) / POINTS)
        whom = ("caller", "holder", "caller", "holder", "anybody")[number % 5]
        for pid in _victims(before.processes, caller, whom)[:1]:
            hit[whom] += 1
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                hit[whom] -= 1
        if whom != "caller":
            time.sleep(chance.random() * 0.01)
            os.kill(caller, signal.SIGKILL)
        after = world.settled(before)
        assert after == before, f"point {number} of {POINTS}, {whom}: {_difference(before, after)}"
    assert world.rules() == files
    assert world.written(upper) == wrote
    print(f"{POINTS} points over {whole * 1000:.0f} ms: {hit}", flush=True)  # noqa: T201 - for the note
    assert sum(hit.values()) >= POINTS // 2, "on a busy machine a life is longer than it was measured"
    return 0


def _difference(before: world.State, after: world.State) -> str:
    lines = []
    for name in before._fields:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            lines.append(f"{name}: {set(new) - set(old) if not isinstance(new, str) else new}")
    pids = after.processes - before.processes
    lines += [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in pids if Path(f"/proc/{pid}").exists()]
    return "; ".join(lines)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The caller, the holder or anybody else of a lab, from before it is up until after it is down."""
    root = make_root(tmp_path / "rootfs")
    assert world.within(lambda upper: _at_points(root, upper), tmp_path) == 0


def _refused(up: Callable[[], Lab], words: str) -> int:
    before = world.state()
    for _ in range(3):
        with pytest.raises(LabError, match=words):
            up().down()
        assert world.settled(before) == before
    return 0


@pytest.mark.parametrize("size", [1 << 12, 1 << 16, 1 << 17])
def test_no_room_for_its_files(tmp_path: Path, size: int) -> None:
    """A host whose file system is full while it is built: the file and the cause, and nothing left."""

    def full(_: str) -> int:
        return _refused(
            lambda: Lab.up("full", size=size, files={"/srv/big": b"x" * (1 << 18)}), "no space left on device"
        )

    assert world.within(full, tmp_path) == 0


@pytest.mark.parametrize("room", [1 << 12, 1 << 20, 3 << 20])
def test_no_memory(tmp_path: Path, room: int) -> None:
    """Memory that runs short while it is built: it says so, and nothing is left."""

    def short(_: str) -> int:
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        files = {"/srv/big": b"x" * (1 << 12)}

        def up() -> Lab:
            pid = os.fork()  # a limit cannot be raised again
            if pid == 0:
                resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))
                code = 3
                try:
                    Lab.up("short", files=files | {f"/srv/{number}": b"y" * (1 << 16) for number in range(200)}).down()
                    code = 0
                except (LabError, MemoryError) as error:
                    code = 1 if "memory" in f"{type(error).__name__} {error}".lower() else 2
                finally:
                    os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code in {0, 1}, code
            raise LabError("memory")

        return _refused(up, "memory")

    assert world.within(short, tmp_path) == 0


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_processes(tmp_path: Path, most: int) -> None:
    """A user who may have no more processes: it says so, and nothing is left."""

    def few(_: str) -> int:
        syscalls.libc()
        privileges.capget()
        before = world.state()
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                os.setgroups([])
                resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
                os.setresgid(61234, 61234, 61234)
                os.setresuid(61234, 61234, 61234)
                privileges.dumpable(on=True)
                Lab.up("few").down()
                code = 0
            except LabError as error:
                code = 1 if "resource temporarily unavailable" in str(error) else 2
                os.write(2, f"{error}\n".encode())
            except BlockingIOError:
                code = 1
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert world.settled(before) == before
        return 0 if code == 1 else 10 + code

    assert world.within(few, tmp_path) == 0


def test_structs_are_values() -> None:
    """What this file makes a container of can be read again: the shim sends it so."""
    made = oci.default(("true",))
    assert oci.decode(oci.encode(made)) == made
    assert msgspec.structs.replace(made, hostname="x") != made
