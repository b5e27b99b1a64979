"""Speed of verification, as ratios to peers in one run: `python -m bench.layers [--small N] [--large MB]`.

- hashlib.file_digest over the same files in the same process, warm: for few large files and for many small ones
- two processes against one: by the clock, which says something on a machine with nothing else to do, and by the processor
  time that two of them take together
- memory of a worker at its most
- structure of 500 layers: everything that is read of the store, the facts and the checks of layers
- `docker save | sha256sum` on an engine's host of the tests (root), and `podman system check` (from podman 5.3 on;
  BENCH_PODMAN is the command where it is another one) of the same large layer, beside ours: the clock, and the processor
  time of all who work

Exit 1 where a target is missed. No root needed; a store is written by hand, as the tests have it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from doctor import sources
from doctor.host import LocalHost
from doctor.keeping import Keeper
from doctor.layering import judged
from doctor.layers import podman
from doctor.layers.model import Checked, Work
from doctor.layers.pool import Pace
from doctor.layers.pool import verify as together
from doctor.reading import Reading
from doctor.registry import load
from tests.cases.casefile import PLACES, base
from tests.enginehost import EngineHost, unavailable
from tests.layers.stores import Node, Store, directory
from tests.layers.verifying import verify

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
TARGET, TARGET_TWO, TARGET_MEMORY, TARGET_STRUCTURE = 0.9, 1.8, 64, 0.3
TIMES = 4
"""How often each layer is verified by two processes: 2.4 GB, a small host; each takes a tenth of a second to start."""
CALM = 0.5
"""Processors in use by others up to which the clock says something about two processes."""


def _best(work: Callable[[], object]) -> tuple[float, float]:
    """Give the best of some rounds: wall and processor seconds."""
    wall = cpu = 1e9
    for _ in range(ROUNDS):
        began, used = time.perf_counter(), time.process_time()
        work()
        wall, cpu = min(wall, time.perf_counter() - began), min(cpu, time.process_time() - used)
    return wall, cpu


def _digest(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123 - the peer at its fastest
                hashlib.file_digest(file, "sha256")


def _ratio(name: str, store: Store, layer: str) -> float:
    work = store.work(layer)
    assert verify(work).checked.state == "whole"
    peer = _best(lambda: _digest(store.diff(layer)))
    ours = _best(lambda: verify(work))
    print(
        f"{name}: {peer[1] / ours[1]:.0%} of hashlib.file_digest by processor time, {peer[0] / ours[0]:.0%} by the clock;"
        f" ours {ours[1]:.3f} s of processor, {work.bytes / ours[1] / 1e9:.2f} GB/s"
    )
    return peer[1] / ours[1]


def _memory(work: Work) -> int:
    """Give the MB that a worker had at its most; a small process starts it, for one counts what it was made from."""
    argv = [sys.executable, "-c", "from bench.layers import hungriest; hungriest()"]
    done = subprocess.run(argv, input=msgspec.json.encode(work), check=True, capture_output=True)
    return int(done.stdout)


def hungriest() -> None:
    """Verify the layer that stands on standard input, and print the MB of the process that did."""
    work = msgspec.json.decode(sys.stdin.buffer.read(), type=Work)
    lines = together([work], Pace(1, gently=False))
    assert any(isinstance(line, Checked) and line.state == "whole" for line in lines["overlay2"])
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)


def _two(store: Store, layers: list[str]) -> bool:
    works = [store.work(layer) for layer in layers] * TIMES
    busy = os.getloadavg()[0]
    one, two = (1e9, 1e9), (1e9, 1e9)
    for _ in range(ROUNDS):
        one = tuple(map(min, one, _timed(works, 1)))
        two = tuple(map(min, two, _timed(works, 2)))
    clock, work = one[0] / two[0], 2 * one[1] / two[1]
    calm = busy <= CALM
    size = sum(one.bytes for one in works) / 1e9
    print(
        f"two processes, {size:.1f} GB: {clock:.2f} x of one by the clock ({one[0]:.2f} s, {two[0]:.2f} s),"
        f" {work:.2f} x by what they take of processors; start included{'' if calm else f'; others use {busy:.1f} processors'}"
    )
    return (clock if calm else work) >= TARGET_TWO


def _timed(works: list[Work], jobs: int) -> tuple[float, float]:
    """Give wall and processor seconds of the processes that verify."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    together(works, Pace(jobs, gently=False))
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _structure(root: Path, images: int, each: int) -> bool:
    """Judge the structure of a store of so many images of so many layers, from the disk to the findings."""
    store = Store(root)
    names = {}
    for image in range(images):
        chain, chains = "", []
        for number in range(each):
            chain = store.layer([Node(f"f{image}-{number}", data=b"%d" % number)], chain)
            chains.append(chain)
        rootfs = {"type": "layers", "diff_ids": [store.diffs[one] for one in chains]}
        text = json.dumps({"architecture": "amd64", "rootfs": rootfs}).encode()
        name = hashlib.sha256(text).hexdigest()
        (root / "image/overlay2/imagedb/content/sha256" / name).write_bytes(text)
        names[f"many/{image}:1"] = f"sha256:{name}"
    listed = {"Repositories": {name.partition(":")[0]: {name: held} for name, held in names.items()}}
    (root / "image/overlay2/repositories.json").write_text(json.dumps(listed))
    (root / "image/overlay2/layerdb/mounts").mkdir()
    time.sleep(0.1)  # what was written while evidence is taken is not judged
    registry = load(plugins=False)
    where = msgspec.structs.replace(PLACES, data_root=str(root))
    healthy = base("healthy-28")

    def look() -> None:
        meta = msgspec.structs.replace(healthy.meta, collected_at=time.time())
        reading = Reading(LocalHost(), where, Keeper(), time.monotonic() + 60)
        for source in sources.STORE:
            reading.read(source)()
        records = {name: one for name, one in healthy.records.items() if not name.startswith("store/")}
        snapshot = msgspec.structs.replace(healthy, meta=meta, records={**records, **reading.kept.records})
        value, _, facts = judged(snapshot, registry, (), deep=False, began=time.perf_counter())
        assert value.structure == images * each, value.structure
        wrong = {one.code for one in value.findings}
        assert wrong <= {"LAY021", "LAY024"}, (
            wrong
        )  # containers of the host that stands around it have none of these layers
        del facts

    look()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, cpu = _best(look)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / ROUNDS  # who reads large trees
    print(f"structure of {images * each} layers: {cpu:.3f} s of processor, {wall:.3f} s by the clock")
    return cpu <= TARGET_STRUCTURE


_IN_HOST = """
import json, os, resource, subprocess, sys, time
def of(pid):
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
best = [1e9, 1e9]
for _ in range(3):
    began, used, served = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN), of(sys.argv[1])
    subprocess.run(sys.argv[2], shell=True, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime + of(sys.argv[1]) - served
    best = [min(best[0], time.perf_counter() - began), min(best[1], cpu)]
print(json.dumps(best))
"""
"""Print the wall and processor seconds of a command at its best, what dockerd (a pid) does for it among them."""


def _docker(tar: Path) -> None:
    """Measure `docker save` and us on the same image of one layer."""
    if why := unavailable():
        print(f"docker save | sha256sum: not measured, {why}")
        return
    with EngineHost.up(suite="sid") as host:
        host.write_bytes("/root/layer.tar", tar.read_bytes())
        host.docker("import", "/root/layer.tar", "bench:1")
        pid = str(host.dockerd_pid())
        for name, command in (
            ("docker save | sha256sum", "docker save bench:1 | sha256sum"),
            ("doctor layers verify --deep", "doctor layers verify --deep --full-speed --jobs 1 bench:1"),
        ):
            wall, cpu = json.loads(host.run("python3", "-c", _IN_HOST, pid, command, timeout=300).stdout)
            print(f"{name}, {tar.stat().st_size / 1e6:.0f} MB on 28.5: {wall:.2f} s, {cpu:.2f} s of processors")


def _podman(tar: Path, folder: Path) -> None:
    """Measure `podman system check` and us on the same store of one image."""
    argv = shlex.split(os.environ.get("BENCH_PODMAN", "podman"))
    if not shutil.which(argv[0]) or not _checks(argv):
        print("podman system check: not measured, there is no podman from 5.3 on")
        return
    argv += ["--root", str(folder / "podman"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]
    subprocess.run([*argv, "import", str(tar), "bench:1"], check=True, capture_output=True)
    wall, cpu = _best_of_children(lambda: subprocess.run([*argv, "system", "check"], check=True, capture_output=True))
    print(f"podman system check, {tar.stat().st_size / 1e6:.0f} MB: {wall:.2f} s, {cpu:.2f} s of processors")
    works = podman.plan(podman.read_store(str(folder / "podman")))
    wall, cpu = _best_of_children(lambda: together(works, Pace(1, gently=False)))
    print(f"doctor on the same store: {wall:.2f} s, {cpu:.2f} s of processors")
    for line in reversed(Path("/proc/self/mountinfo").read_text(encoding="utf-8").split("\n")):
        if str(folder) in line:
            subprocess.run(["umount", line.split(" ")[4]], check=False)


def _checks(argv: list[str]) -> bool:
    """Whether this podman has `system check`: one that does not prints the help of `system`, and ends with 0 as well."""
    said = subprocess.run([*argv, "system", "--help"], check=False, capture_output=True, text=True)
    return any(line.split()[:1] == ["check"] for line in said.stdout.splitlines())


def _best_of_children(work: Callable[[], object]) -> tuple[float, float]:
    """Give the best of three rounds of what processes of ours do: wall and processor seconds."""
    best = (1e9, 1e9)
    for _ in range(3):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = (min(best[0], time.perf_counter() - began), min(best[1], cpu))
    return best


def main() -> None:
    """Measure, and print one line each."""
    options = argparse.ArgumentParser()
    options.add_argument("--small", type=int, default=20_000)
    options.add_argument("--large", type=int, default=50, help="MB of each of seven files")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "docker")
        data = os.urandom(chosen.large * 1_000_000)
        large = store.layer([directory("d"), *(Node(f"d/f{n}", data=data[n:]) for n in range(7))])
        small = store.layer(
            [
                directory("s"),
                *(Node(f"s/d{n // 100}/f{n}", data=data[n * 12 : n * 12 + 12_500]) for n in range(chosen.small)),
            ]
        )
        many = [store.layer([Node(f"f{n}", data=data[n:] + data[:n])]) for n in range(12)]
        met = {
            f"{TARGET:.0%} with seven large files": _ratio("seven large files", store, large) >= TARGET,
            f"{TARGET:.0%} with {chosen.small:,} small files": _ratio(f"{chosen.small:,} small files", store, small)
            >= TARGET,
            f"{TARGET_TWO} x with two processes": _two(store, many),
            f"{TARGET_STRUCTURE} s for 500 layers": _structure(Path(folder) / "many", 50, 10),
        }
        for what, layer in (("large files", large), ("small files", small)):
            most = _memory(store.work(layer))
            print(f"memory of a worker with {what}: {most} MB at most")
            met[f"{TARGET_MEMORY} MB with {what}"] = most <= TARGET_MEMORY
        tar = Path(folder) / "layer.tar"
        subprocess.run(["tar", "-C", store.diff(large), "-cf", tar, "."], check=True)
        _docker(tar)
        _podman(tar, Path(folder))
    failed = [name for name, held in met.items() if not held]
    if failed:
        sys.exit(f"missed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
