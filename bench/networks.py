"""The networks of a lab: 3 and 50 containers with a published port each, beside the same by pyroute2's own encoding.

Links, addresses, routes, rules of both families, proxies and the embedded DNS of every container; the containers are
network namespaces that were there. Run as root: python -m bench.networks [REPEATS]
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from doctor.linux.rtwrite import Batch
from tests.runtime.nets import Host, apart


def ours(count: int, words: str, dialect: str = "28") -> tuple[float, float, dict[str, float]]:
    """Bring up that many containers in one batch; gives wall and processor seconds, and parts."""
    host = Host(dialect)
    made = [host.create(f"c{number}", words.format(number=20_000 + number)) for number in range(count)]
    network = "--subnet 10.7.0.0/20 shop"
    gc.disable()
    wall, used = time.perf_counter(), time.process_time()
    host.start()
    started = time.perf_counter()
    host.network(network)
    networked = time.perf_counter()
    with host.controller.batch():
        for one in made:
            host.controller.join(one, host.spaces[one])
        joined = time.perf_counter()
    end = time.perf_counter()
    found = (
        end - wall,
        time.process_time() - used,
        {
            "start": started - wall,
            "network": networked - started,
            "allocate": joined - networked,
            "flush": end - joined,
        },
    )
    host.close()
    return found


def encoding(count: int) -> dict[str, float]:
    """Processor time to encode what `count` containers need, by pyroute2's batch and by ours; nothing is sent."""
    from pyroute2.iproute.linux import IPBatch

    found = {}
    theirs = IPBatch()
    used = time.process_time()
    for number in range(count):
        theirs.link("add", ifname=f"veth{number}", kind="veth", peer={"ifname": "eth0"})
        theirs.link("set", index=1, state="up")
        theirs.addr("add", index=2, address=f"10.7.{number}.2", prefixlen=16, broadcast="10.7.255.255")
        theirs.link("set", index=2, state="up")
        theirs.route("add", dst="default", gateway="10.7.0.1")
    found["pyroute2"] = time.process_time() - used
    theirs.close()
    with Batch() as batch:
        used = time.process_time()
        for number in range(count):
            batch.veth(f"veth{number}", "eth0")
            batch.up(1)
            batch.address(2, f"10.7.{number}.2/16", broadcast=True)
            batch.up(2)
            batch.route("default", gateway="10.7.0.1")
        found["ours"] = time.process_time() - used
    return found


def main() -> None:
    """Print medians."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for count in (3, 50):
        for name, words in (
            ("docker0, no port", ""),
            ("docker0, a port each", "-p {number}:80"),
            ("a network with DNS", "--network shop"),
            ("a network with DNS, a port each", "--network shop -p {number}:80"),
        ):
            runs = [apart(lambda c=count, w=words: ours(c, w)) for _ in range(repeats)]
            walls, used = [one[0] for one in runs], [one[1] for one in runs]
            parts = {key: statistics.median(one[2][key] for one in runs) * 1000 for key in runs[0][2]}
            shown = " ".join(f"{key} {value:.1f}" for key, value in parts.items())
            print(
                f"{count:3} {name:32} {statistics.median(walls) * 1000:7.1f} ms wall, "
                f"{min(walls) * 1000:6.1f} best, {statistics.median(used) * 1000:6.1f} ms own processor  ({shown})"
            )
    found = encoding(50)
    print(
        f"encoding alone, 50 containers: pyroute2 {found['pyroute2'] * 1000:.1f} ms, ours {found['ours'] * 1000:.1f} ms"
    )


if __name__ == "__main__":
    main()
