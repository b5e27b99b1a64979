# What `make check` runs: format, lint, types, import contracts, and the tests that need no root and no patience.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh dev
sh tools/lint.sh form

# Types take a moment, or fifteen where mypy has kept nothing: beside the tests, which seldom keep all cores busy.
said=$(mktemp)
trap 'rm -f "$said"' EXIT
sh tools/lint.sh meaning >"$said" 2>&1 &
types=$!
# What a module prepares once is prepared by one worker: its tests stay together.
code=0
.venv/bin/python -m pytest -q -n auto --dist loadfile --hypothesis-profile quick \
    -m "not root and not engine and not browser and not slow" --ignore tests/engine --ignore tests/browser || code=$?
wait "$types" || { cat "$said"; exit 1; }
exit "$code"
