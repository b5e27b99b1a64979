# Set up what is missing, system packages included (root, Debian), then lint and run every test. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh test

# The engines' Debians are made before the tests, none of which has time for it, and beside the linters.
.venv/bin/python -m tests.enginehost build >&2 &
built=$!
lint=0
sh tools/lint.sh || lint=$?
wait "$built" || echo "test: not all engines could be made, see above; tests that need them will say so" >&2
[ "$lint" = 0 ] || exit "$lint"

# Engines mostly wait: one process more than there are cores keeps them busy. Neighbours stay together, and share a host.
# What is tried and in which order is the same each time, so that what is red here is red again; `make check` tries others.
# CI ends after 90 minutes without a word: before that pytest is interrupted, and says what it has found so far.
exec timeout --foreground --signal INT --kill-after 400 4500 .venv/bin/python -m pytest -n "$(($(nproc) + 1))" \
    --dist worksteal --hypothesis-profile steady --randomly-seed 1 "$@"
