#!/bin/sh
# Format, lint, types, directions of imports. Changes nothing.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/ruff format --quiet --check .
.venv/bin/ruff check --quiet .
.venv/bin/python -m mypy
.venv/bin/lint-imports --no-logo
