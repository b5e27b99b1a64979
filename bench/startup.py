"""How long doctor takes to start, as a ratio to the bare interpreter in the same run. Needs nothing.

Run as `python -m bench.startup`; exits 1 when a ratio is above its limit. Each figure is the least of several runs, all
commands taken in turn, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 15
BARE = ("-I", "-c", "pass")
CASES = (
    ("doctor --version", ("-m", "doctor", "--version"), 2.0),
    ("doctor explain NET034", ("-m", "doctor", "explain", "NET034"), 10.0),
    ("doctor check BUNDLE", ("-m", "doctor", "check", "--example", "forwarding-off"), 20.0),
)


def once(arguments: tuple[str, ...]) -> float:
    """Run the interpreter with these arguments; wall seconds."""
    start = time.perf_counter()
    subprocess.run((sys.executable, *arguments), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    """Print the ratios; give 1 when one is above its limit."""
    for _, arguments, _ in CASES:
        once(arguments)  # byte-compile
    bare = []
    took: dict[str, list[float]] = {name: [] for name, _, _ in CASES}
    for _ in range(RUNS):
        bare.append(once(BARE))
        for name, arguments, _ in CASES:
            took[name].append(once(arguments))
    least = min(bare)
    print(f"{'python -I -c pass':<24}{least * 1000:8.1f} ms")
    failed = 0
    for name, _, limit in CASES:
        ratio = min(took[name]) / least
        failed |= ratio > limit
        print(f"{name:<24}{min(took[name]) * 1000:8.1f} ms  {ratio:5.1f} x  (limit {limit:.0f} x)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
