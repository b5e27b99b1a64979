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
few=12
code=0
timeout --foreground --signal INT --kill-after 400 4500 .venv/bin/python -m pytest -n "$(($(nproc) + 1))" \
    --dist worksteal --hypothesis-profile steady --randomly-seed 1 "$@" || code=$?
[ "$code" = 1 ] || exit "$code"

# Three workers on two cores starve engines now and then, and a daemon that has no time to answer looks like one that hangs.
# What was red beside others is tried once more, alone, and told; more than a few are no matter of time.
red=$(.venv/bin/python -c 'import json; print(len(json.load(open(".pytest_cache/v/cache/lastfailed"))))' 2>/dev/null || echo 0)
[ "$red" -gt 0 ] && [ "$red" -le "$few" ] || exit 1
echo "test: $red failed beside others; tried once more, alone" >&2
exec timeout --foreground --signal INT --kill-after 60 900 .venv/bin/python -m pytest -p no:randomly \
    --hypothesis-profile steady --last-failed --last-failed-no-failures none "$@"
