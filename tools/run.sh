#!/bin/sh
# Set up what is missing, then run `doctor check` on this host; on one without Docker, on an example that ships.
# Arguments go to `doctor check`. The exit code is doctor's, but for the example: there a fault must be found.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh run

has_docker() {
    .venv/bin/python -c 'import sys
from doctor.host import LocalHost
from doctor.places import find, here
sys.exit(not find(LocalHost(), here()).present)'
}

if [ $# -gt 0 ] || has_docker; then
    exec .venv/bin/doctor check "$@"
fi
echo "No Docker on this machine. This is a broken host that ships with doctor:"
echo "\$ doctor check --example forwarding-off"
code=0
.venv/bin/doctor check --example forwarding-off || code=$?
case $code in
    1) ;; # as it has to be: something was found
    0) echo "run: the example is broken, and nothing was found" >&2; exit 1 ;;
    *) exit "$code" ;;
esac
