"""Benchmarks: ratios to a peer or to the bare interpreter, taken in one run."""
