#!/bin/sh
# Set up what is missing, system packages included (root, Debian), then lint and run every test. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh test
sh tools/lint.sh
# Engines mostly wait: one process more than there are cores keeps them busy. Neighbours stay together, and share a host.
exec .venv/bin/python -m pytest -n "$(($(nproc) + 1))" --dist worksteal "$@"
