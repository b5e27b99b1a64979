# Format, lint, types, directions of imports. Changes nothing. `sh tools/lint.sh [form|meaning]`: the first two, or the others.
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-form}" = form ]; then
    .venv/bin/ruff format --quiet --check .
    .venv/bin/ruff check --quiet .
fi
if [ "${1:-meaning}" = meaning ]; then
    .venv/bin/python -m mypy
    .venv/bin/lint-imports --no-logo
fi
