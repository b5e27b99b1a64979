"""Speed of deep verification, as ratios to peers in one run: `python -m bench.layers [--small N] [--large MB]`.

- hashlib.file_digest over the same files in the same process, warm: for few large files and for many small ones
- two processes against one
- structure of 500 layers: the facts and checks of layers alone
- `docker save | sha256sum` and `podman system check`, where they are there
Memory is that of a worker of its own. No root needed; a store is written by hand, as the tests have it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.layers.model import Checked
from doctor.layers.pool import Pace
from doctor.layers.pool import verify as together
from tests.layers.stores import Node, Store, directory
from tests.layers.verifying import verify

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
TARGET, TARGET_TWO, TARGET_MEMORY = 0.9, 1.8, 64


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


def _memory(store: Store, layer: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    lines = together([store.work(layer)], Pace(1, gently=False))
    assert any(isinstance(line, Checked) and line.state == "whole" for line in lines["overlay2"])
    print(
        f"memory of a worker: {max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024} MB at most"
    )


def _two(store: Store, layers: list[str]) -> None:
    works = [store.work(layer) for layer in layers]
    one = min(_timed(works, 1) for _ in range(3))
    two = min(_timed(works, 2) for _ in range(3))
    print(f"two processes: {one / two:.2f} x of one ({one:.2f} s, {two:.2f} s), start of the processes included")


def _timed(works: list, jobs: int) -> float:  # type: ignore[type-arg]
    began = time.perf_counter()
    together(works, Pace(jobs, gently=False))
    return time.perf_counter() - began


def _peers(store: Store, layer: str) -> None:
    if shutil.which("podman"):
        began = time.perf_counter()
        subprocess.run(["podman", "system", "check"], check=False, capture_output=True)
        print(f"podman system check of this machine's store: {time.perf_counter() - began:.2f} s")
    else:
        print("podman system check: not measured, podman is not here")
    image = os.environ.get("BENCH_IMAGE", "")
    if image and shutil.which("docker"):
        began = time.perf_counter()
        subprocess.run(f"docker save {image} | sha256sum", shell=True, check=True, capture_output=True)  # noqa: S602 - a pipe
        print(f"docker save {image} | sha256sum: {time.perf_counter() - began:.2f} s")
    else:
        print("docker save | sha256sum: not measured, BENCH_IMAGE names no image of a docker here")
    del store, layer


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
        many = [store.layer([Node(f"f{n}", data=data[n : n + 40_000_000])]) for n in range(6)]
        failed = [
            name
            for name, layer in (("seven large files", large), (f"{chosen.small:,} small files", small))
            if _ratio(name, store, layer) < TARGET
        ]
        _memory(store, large)
        _memory(store, small)
        _two(store, many)
        _peers(store, large)
    if failed:
        sys.exit(f"below {TARGET:.0%}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
