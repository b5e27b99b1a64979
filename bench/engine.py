"""How fast doctor reads a real host, and how much memory it takes. Needs root and an engine root (tests/enginehost.py).

Run as `python -m bench.engine [small] [large]`. The small host has 20 containers and is compared with
docker-bench-security in the same run, where DOCKER_BENCH_SECURITY names a checkout of it. The large one has 200
containers on 5 networks, 100 published ports, 500 images of 6 layers and an nft set of 100,000 elements. What gates is
the ratio; seconds and megabytes are printed for the reader.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path

from tests.enginehost import IMAGE, EngineHost

RUNS = 7
FASTER = 150.0
"""How many times faster than docker-bench-security `doctor check` has to be with 20 containers."""

PER_CONTAINER = 0.15
"""Megabytes that memory may grow by for each container."""

WATCH = """
import os, subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
peak = 0
def pss(pid):
    try:
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0
def tree(pid):
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            for other in open(f"/proc/{pid}/task/{task}/children").read().split():
                found += tree(other)
        except OSError:
            pass
    return found
while child.poll() is None:
    try:
        peak = max(peak, sum(map(pss, tree(str(child.pid)))))
    except OSError:
        pass
    time.sleep(0.004)
print(peak)
"""


def images() -> bytes:
    """Give a docker-archive of 500 images, each of 6 layers of its own."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        manifest = []
        for number in range(500):
            layers, diffs = [], []
            for depth in range(6):
                layer = io.BytesIO()
                with tarfile.open(fileobj=layer, mode="w") as inner:
                    content = f"image {number} layer {depth}\n".encode()
                    info = tarfile.TarInfo(f"file{depth}")
                    info.size = len(content)
                    inner.addfile(info, io.BytesIO(content))
                digest = hashlib.sha256(layer.getvalue()).hexdigest()
                add(f"{digest}/layer.tar", layer.getvalue())
                layers.append(f"{digest}/layer.tar")
                diffs.append(f"sha256:{digest}")
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin", f"APP_TOKEN=token-{number:024d}"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": diffs},
                "history": [{"created_by": f"RUN step {step} of image {number}"} for step in range(6)],
            }
            text = json.dumps(config).encode()
            name = hashlib.sha256(text).hexdigest() + ".json"
            add(name, text)
            manifest.append({"Config": name, "RepoTags": [f"shop/image{number}:1.{number}"], "Layers": layers})
        add("manifest.json", json.dumps(manifest).encode())
    return data.getvalue()


def populate(host: EngineHost, numbers: range, networks: int) -> None:
    """Start containers, spread over the networks, every other one with a published port."""
    names = ["bridge", *(f"net{number}" for number in range(1, networks))]
    for number, name in enumerate(names[1:] if not numbers.start else (), 1):
        host.docker("network", "create", "--subnet", f"10.{number}.0.0/16", name)
    script = "".join(
        f"docker run -d --name c{number} --network {names[number % networks]} -e DB_PASSWORD=secret-{number}-value"
        f" {f'-p {9000 + number}:80' if number % 2 == 0 else ''} {IMAGE} serve >/dev/null\n"
        for number in numbers
    )
    host.sh(script, timeout=600)


def ban(host: EngineHost) -> None:
    """Load an nft set of 100,000 elements."""
    elements = ",".join(f"100.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(100_000))
    rules = f"table inet ban {{\n set bad {{ type ipv4_addr; elements = {{ {elements} }} }}\n"
    rules += " chain in { type filter hook input priority 10; ip saddr @bad drop; }\n}\n"
    host.write("/tmp/ban.nft", rules)
    host.sh("nft -f /tmp/ban.nft")


def seconds(host: EngineHost) -> list[float]:
    """Time `doctor check` as a user types it."""
    host.doctor("check")
    took = []
    for _ in range(RUNS):
        start = time.perf_counter()
        done = host.doctor("check")
        took.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stdout
    return sorted(took)


def megabytes(host: EngineHost) -> float:
    """Measure the peak of the summed PSS of doctor and its children."""
    host.write("/tmp/watch.py", WATCH)
    peaks = [int(host.run("python3", "/tmp/watch.py", "doctor", "check").stdout) for _ in range(3)]
    return max(peaks) / 1024


def peer(host: EngineHost) -> float | None:
    """Time docker-bench-security on the host; None where there is no checkout."""
    checkout = os.environ.get("DOCKER_BENCH_SECURITY", "")
    if not checkout or not Path(checkout, "docker-bench-security.sh").exists():
        print("  docker-bench-security: skipped, DOCKER_BENCH_SECURITY names no checkout of it")
        return None
    for path in Path(checkout).rglob("*"):
        if path.is_file() and ".git" not in path.parts and path.suffix in {".sh", ".md", ""}:
            text = path.read_text(encoding="utf-8", errors="replace")
            host.write(f"/opt/dbs/{path.relative_to(checkout)}", text, 0o755)
    start = time.perf_counter()
    done = host.run("sh", "-c", "cd /opt/dbs && sh docker-bench-security.sh -b", check=False, timeout=580)
    took = time.perf_counter() - start
    assert "Checks:" in done.stdout, done.stdout[-500:] + done.stderr[-500:]
    return took


def small() -> bool:
    """Measure the host of 20 containers; gives whether the ratio holds."""
    with EngineHost.up(suite="sid") as host:
        populate(host, range(20), 3)
        took = seconds(host)
        memory = megabytes(host)
        print(f"20 containers: {took[0]:.2f} s at best, {took[len(took) // 2]:.2f} s median; peak {memory:.0f} MB")
        other = peer(host)
        if other is None:
            return True
        ratio = other / took[len(took) // 2]
        print(f"  docker-bench-security: {other:.1f} s, {ratio:.0f} x (at least {FASTER:.0f} x)")
        return ratio >= FASTER


def large() -> bool:
    """Measure the host of 200 containers; gives whether memory grows as little as it has to."""
    with EngineHost.up(suite="sid") as host:
        archive = host.state / "docker" / "images.tar"
        archive.write_bytes(images())
        host.sh("docker load -q -i /var/lib/docker/images.tar >/dev/null; rm /var/lib/docker/images.tar", timeout=600)
        ban(host)
        populate(host, range(100), 5)
        before = megabytes(host)
        populate(host, range(100, 200), 5)
        took = seconds(host)
        memory = megabytes(host)
        growth = (memory - before) / 100
        print(f"200 containers: {took[0]:.2f} s at best, {took[len(took) // 2]:.2f} s median; peak {memory:.0f} MB")
        print(f"  from 100 to 200 memory grows by {growth:.2f} MB a container (at most {PER_CONTAINER} MB)")
        return growth <= PER_CONTAINER


def main() -> int:
    """Run what is named, or both; 1 when a ratio does not hold."""
    wanted = sys.argv[1:] or ["small", "large"]
    results = [run() for name, run in (("small", small), ("large", large)) if name in wanted]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
