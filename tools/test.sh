#!/bin/sh
# Set up what is missing, system packages included (root, Debian), then lint and run every test. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh test
sh tools/lint.sh
exec .venv/bin/python -m pytest "$@"
