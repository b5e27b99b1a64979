"""Tests on real engines; a package, so that `tests.enginehost` is found from wherever pytest is started."""
