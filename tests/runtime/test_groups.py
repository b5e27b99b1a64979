"""Control groups are opt-in, are named by who holds them, hold what is in them, and are swept."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from doctor.linux import mounting, syscalls
from doctor.runtime import cgroups, oci
from doctor.runtime.container import Container
from doctor.runtime.host import Lab, LabError
from doctor.runtime_commands import bring_up
from tests.runtime.columns import become
from tests.runtime.conftest import make_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root
replace = msgspec.structs.replace


def ours() -> list[str]:
    """List the groups of labs on this machine."""
    places = (one.own if one.words else one.place for one in cgroups.hierarchies())
    return sorted(str(found) for place in places for found in Path(place).glob(f"{cgroups.PREFIX}.*"))


def can(controller: str) -> None:
    """Skip where the controller is none of a hierarchy that groups can be made in."""
    if not any(controller in one.controllers for one in cgroups.hierarchies()):
        pytest.skip(f"no controller {controller} here")


def contained(script: str, **resources: dict[str, int]) -> tuple[int, bool]:
    """Run a script with limits, in the lab; gives exit code, and whether memory was short."""
    if not Path("/srv/root").exists():
        make_root(Path("/srv/root"))
        for name in ("head", "tail", "cat"):
            Path(f"/srv/root/bin/{name}").unlink(missing_ok=True)
            Path(f"/srv/root/bin/{name}").symlink_to("busybox")
    made = oci.default(("sh", "-c", script), rootfs="/srv/root")
    made = replace(made, linux=replace(made.linux, cgroups_path="/docker/one", resources=resources))
    one = Container.create(made, id="one")
    one.start()
    code, short = one.wait(30), one.out_of_memory
    one.delete()
    return code, short


def test_a_lab_without_them_makes_none() -> None:
    """They are opt-in."""
    before = ours()
    with Lab.up(f"g{os.getpid()}") as lab:
        assert ours() == before
        assert b"ro," in lab.run(("sh", "-c", "grep cgroup /proc/mounts")).stdout
    assert not set(ours()) - set(before)


def test_limits_hold() -> None:
    """Of processes and of memory; groups are gone with the container, and with the lab."""
    can("pids")
    can("memory")
    before = ours()

    def forks() -> int:
        return contained("for n in 1 2 3 4 5 6; do sleep 1 & done; exit 0", pids={"limit": 3})[0]

    def eats() -> int:
        code, short = contained("head -c 100000000 /dev/zero | tail > /dev/null", memory={"limit": 8 << 20})
        return 0 if short and code != 0 else 1

    with Lab.up(f"h{os.getpid()}", groups=True) as lab:
        assert set(ours()) - set(before)
        for function, expected in ((forks, 2), (eats, 0)):
            pid = lab.fork(function)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == expected
        left = [one for place in set(ours()) - set(before) for one in Path(place).rglob("docker/*") if one.is_dir()]
        assert left == []
    assert not set(ours()) - set(before)


def test_what_was_killed_is_swept_at_the_next_start() -> None:
    """Its one directory a hierarchy is all that is left of it, until then."""
    can("pids")
    before = ours()
    pid = os.fork()
    if pid == 0:
        Lab.up(f"k{os.getpid()}", groups=True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    until = time.monotonic() + 10
    while any(cgroups._lives(*place.rsplit(".", 2)[1:]) for place in ours()) and time.monotonic() < until:
        time.sleep(0.01)
    with Lab.up(f"n{os.getpid()}", groups=True):
        pass
    assert not set(ours()) - set(before)


@pytest.fixture
def version_2(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Let version 2 be all that there is, and one of its controllers the one to limit by; gives its place and the controller.

    A machine that keeps the controllers of limits in version 1 has others. The root hands it down as long as this lasts.
    """
    place = next((one.place for one in cgroups.hierarchies() if not one.words and Path(one.place).is_dir()), "")
    offered = Path(place, "cgroup.controllers").read_text().split() if place else []
    if not offered:
        pytest.skip("no hierarchy of version 2 with a controller here")
    name, handed = offered[-1], Path(place, "cgroup.subtree_control")
    before = handed.read_text().split()
    monkeypatch.setattr(cgroups, "LIMITED", frozenset({name}))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [cgroups.Hierarchy(place, (), "/")])
    handed.write_text(f"+{name}")
    yield place, name
    if name not in before:
        handed.write_text(f"-{name}")


def test_version_2_hands_controllers_down(version_2: tuple[str, str]) -> None:
    """To a group two levels below the lab's, out of which its processes go first; all of it goes with the lab."""
    place, name = version_2

    def within() -> list[str]:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP)
        mounting.propagation("/", mounting.MS_REC | mounting.MS_PRIVATE)
        mounting.attach(mounting.prepared("cgroup2", (), 0, "cgroup2"), place)
        cgroups.enter(cgroups.limit("/docker/one", {}))
        os.read(ready, 1)  # somebody enters the lab meanwhile, whose own group has controllers below now
        own = Path(place, "docker/one")
        files = (own / "cgroup.controllers", Path(place, "cgroup.procs"), own / "cgroup.procs")
        return [" ".join(one.read_text().split()) for one in files]

    reading, writing = os.pipe()
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(ready, 1)
            os.write(writing, "|".join(within()).encode())
        except BaseException as error:  # noqa: BLE001 - a forked child leaves here
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    groups = cgroups.make(pid)
    os.write(go, b"x")
    until = time.monotonic() + 10
    while not (entered := Path(groups[0], "docker/one/cgroup.procs")).exists() or not entered.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    late = os.fork()
    if late == 0:
        try:
            cgroups.enter(groups)
            os._exit(0 if Path("/proc/self/cgroup").read_text().rstrip().endswith("/host") else 2)
        finally:
            os._exit(1)
    came = os.waitstatus_to_exitcode(os.waitpid(late, 0)[1])
    os.write(go, b"x")
    os.close(writing)
    said = os.read(reading, 4096).decode()
    os.waitpid(pid, 0)
    cgroups.remove(groups)
    for handle in (reading, ready, go):
        os.close(handle)
    assert came == 0
    assert said == f"{name}||{pid}"
    assert groups
    assert not any(Path(one).exists() for one in groups)


def test_version_2_that_hands_nothing_down(version_2: tuple[str, str]) -> None:
    """What the root hands down is the machine's to say: it is told what to write, and nothing is left."""
    place, name = version_2
    handed = Path(place, "cgroup.subtree_control")
    handed.write_text(f"-{name}")
    with pytest.raises(
        LabError, match=rf"no control groups for a lab: {handed}: hands none down: write \+{name} into it"
    ):
        Lab.up(f"v{os.getpid()}", groups=True)
    assert ours() == []
    handed.write_text(f"+{name}")


def test_a_user_is_told_that_they_need_root() -> None:
    """A plain user cannot make them, and the lab does not come up half."""

    def refused() -> int:
        try:
            Lab.up("groups", groups=True).down()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
            return 0 if "no control groups for a lab" in str(error) else 2
        return 3

    assert become("plain user", partial(refused)) == 0


def _limited(*, limits: bool) -> list[tuple[int, str]]:
    """Run what `docker run` limits, in a host with groups or without; gives code and output of each."""
    found = []
    with bring_up(f"d{os.getpid()}", "28", {}, detach=False, limits=limits) as lab:
        for words, script in (
            ("run --name eater -m 16m busybox sh -c", "head -c 100000000 /dev/zero | tail > /dev/null"),
            ("inspect -f {{.State.OOMKilled}}/{{.HostConfig.Memory}} eater", ""),
            ("run --rm --pids-limit 4 busybox sh -c", "for n in 1 2 3 4 5 6; do sleep 1 & done; exit 0"),
            ("run --rm --cpus 0.5 busybox true", ""),
            ("run --rm --memory 1m busybox true", ""),
        ):
            done = lab.run(("docker", *words.split(), *([script] if script else [])))
            found.append((done.returncode, (done.stdout + done.stderr).decode().partition("\n")[0]))
    return found


def test_docker_run_limits() -> None:
    """What a container was promised is held: memory, with a note that it was short, processes, processors."""
    can("pids")
    can("memory")
    before = ours()
    found = _limited(limits=True)
    assert [code for code, _ in found] == [137, 0, 2, 0, 125]
    assert found[1][1] == f"true/{16 << 20}"
    assert found[4][1].endswith("Minimum memory limit allowed is 6MB")
    assert not set(ours()) - set(before)


def test_docker_run_says_what_it_cannot_limit() -> None:
    """In a host without groups, in the words of the engine, as a plain user too."""

    def said() -> int:
        found = _limited(limits=False)
        head = "Your kernel does not support {} capabilities or the cgroup is not mounted."
        expected = [
            (0, f"WARNING: {head.format('memory limit')} Limitation discarded."),
            (0, "false/0"),
            (0, f"WARNING: {head.format('PIDs limit')} PIDs limit discarded."),
        ]
        os.write(2, f"{found}\n".encode())
        refused = (
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted"
        )
        return 0 if found[:3] == expected and found[3][0] == 125 and found[3][1].endswith(refused) else 1

    assert become("plain user", said) == 0
