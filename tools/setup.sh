#!/bin/sh
# Make .venv with doctor in it: `sh tools/setup.sh [run|dev|test]`. Does nothing when all is there and as it should be.
#
#   run   doctor and what it needs to run
#   dev   and what `make check` needs
#   test  and the system packages that the tests on engines, kernels and browsers need (root, apt-get)
#
# PYTHON names the interpreter; else the first of python3, python3.14 ... python3.11 that is 3.11 or newer.
set -eu
cd "$(dirname "$0")/.."
mode=${1:-run}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s\n' "setup: $*" >&2; }

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Lists go stale, and a bare machine has none: asked for once, and only when something is to be installed.
apt_install() {
    say "apt-get install $*"
    export DEBIAN_FRONTEND=noninteractive
    [ -n "${updated:-}" ] || apt-get -qq -o Acquire::Retries=3 update >&2 || return 1
    updated=yes
    # With a RUNLEVEL of rescue nothing that is installed is started (docker-registry has a service).
    RUNLEVEL=1 apt-get -qq -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >/dev/null
}

python_is_good() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$name" >/dev/null && python_is_good "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

make_venv() {
    if ! python=$(find_python); then
        can_install && apt_install python3 python3-venv || :
        python=$(find_python) || { say "needs Python 3.11 or newer; PYTHON=/path/to/python3 names one"; exit 1; }
    fi
    # Debian ships venv without ensurepip until python3-venv is there.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        can_install && apt_install python3-venv || :
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            { say "needs the module venv of $python: install python3-venv"; exit 1; }
    fi
    say "making .venv with $("$python" -V)"
    rm -rf .venv
    "$python" -m venv .venv
}

# What was installed: for which folder (scripts in a venv name it), by which Python, for which pyproject.toml.
state() { printf '%s\n' "$PWD" "$(.venv/bin/python -V)" "$(cksum <pyproject.toml)" "$1"; }

install() {
    say "installing doctor${2:+ and its tools} into .venv"
    # The groups are read here: pip knows --group from 25.1 on only.
    .venv/bin/python - "$2" <<'PYTHON' | xargs .venv/bin/python -m pip install -qq --disable-pip-version-check --editable .
import shlex, sys, tomllib

with open("pyproject.toml", "rb") as file:
    groups = tomllib.load(file)["dependency-groups"]
print(*(shlex.quote(one) for name in sys.argv[1].split() for one in groups[name]), sep="\n")
PYTHON
    state "$1" >.venv/doctor-state
}

case $mode in
    run | dev | test) ;;
    *) say "$mode is none of run, dev, test"; exit 2 ;;
esac

if [ "$mode" = test ]; then
    missing=
    for pair in mmdebstrap:mmdebstrap ip:iproute2 iptables:iptables nft:nftables unshare:util-linux nsenter:util-linux \
        mount:mount newuidmap:uidmap busybox:busybox-static chromium:chromium podman:podman docker-registry:docker-registry; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086  # a list of words
        if ! can_install; then
            say "not here, and not installed without root and apt-get:$missing (tests that need them are skipped)"
        elif ! apt_install $missing; then
            say "apt-get could not install$missing: tests that need them are skipped"
        fi
    fi
fi

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    make_venv
elif [ -f .venv/doctor-state ] && [ "$(head -n 1 .venv/doctor-state)" != "$PWD" ]; then
    say ".venv was made for another folder"
    make_venv
fi
held=$(cat .venv/doctor-state 2>/dev/null || :)
if [ "$mode" = run ]; then
    [ "$held" = "$(state run)" ] || [ "$held" = "$(state dev)" ] || install run ""
else
    [ "$held" = "$(state dev)" ] || install dev dev
fi
