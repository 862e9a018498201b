#!/bin/sh
# Makes .venv hold exactly what the locks name. Usage: tools/bootstrap.sh runtime|dev
#
# Used by make and by ./drill. Needs a Python of 3.11 or newer and nothing else. A stamp with the content of what was
# installed is written last: with a stamp that fits, this does nothing and returns at once; after an interruption the
# next call starts from an empty environment.
set -eu

usage=64
what=${1:-runtime}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv

case $what in runtime | dev) ;; *) echo "usage: tools/bootstrap.sh runtime|dev" >&2; exit $usage ;; esac

say() { echo "setup: $*" >&2; }

fail() { # fact, expected, remedy
    printf 'setup: %s\n  expected: %s\n  remedy:   %s\n' "$1" "$2" "$3" >&2
    exit $usage
}

# The path belongs to the key: the scripts of an environment name it, so a moved checkout needs a new one.
key_of() { { echo "$root"; cat "$root/requirements/$1.lock" "$root/pyproject.toml" "$root/tools/bootstrap.sh"; } | sha256sum | cut -d' ' -f1; }

stamped() { [ -f "$venv/.stamp-$1" ] && [ "$(cat "$venv/.stamp-$1")" = "$(key_of "$1")" ] && [ -x "$venv/bin/python" ]; }

# Development's lock holds the run-time lock, pin by pin, so its environment serves both.
ready() { stamped dev || { [ "$what" = runtime ] && stamped runtime; }; }

ready && exit 0

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=${PYTHON:-}
if [ -n "$python" ]; then
    is_new_enough "$python" || fail "PYTHON=$python is not usable" "Python 3.11 or newer" "point PYTHON at one, or unset it"
else
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$candidate"; then python=$candidate; break; fi
    done
    [ -n "$python" ] || fail "no Python of 3.11 or newer on PATH" "python3 of 3.11 or newer" \
        "apt-get install python3 (Debian 12, Ubuntu 24.04 or newer have it), or set PYTHON=/path/to/python"
fi

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

if ! has_venv; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    remedy="as root: apt-get install $package"
    fact="$python cannot make virtual environments (its ensurepip module is not installed)"
    command -v apt-get >/dev/null || fail "$fact" "Python's venv and ensurepip modules" "install them with your system's packages"
    [ "$(id -u)" = 0 ] || fail "$fact" "the package $package" "$remedy"
    say "$python has no venv module: installing the package $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "$package" >/dev/null; } ||
        fail "apt-get could not install $package" "the package $package" "$remedy"
    has_venv || fail "$fact, also with $package installed" "Python's venv and ensurepip modules" \
        "set PYTHON to a python that has them, for example /usr/bin/python3"
fi

mkdir -p "$venv"
if command -v flock >/dev/null; then # one at a time; whoever waited finds the work done
    exec 9<"$venv"
    flock 9
    ready && exit 0
fi

started=$(date +%s)
if [ -e "$venv/.unfinished" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
: >"$venv/.unfinished"
rm -f "$venv/.stamp-dev" "$venv/.stamp-runtime"
say "installing $(grep -c '==' "$root/requirements/$what.lock") pinned packages into .venv (about a minute the first time)"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --no-input "$@"; }
pip install --require-hashes -r "$root/requirements/$what.lock" ||
    fail "pip could not install requirements/$what.lock" "every pinned package, with its hash" \
        "read pip's message above; check the way to the package index and the free disk space; then run the same command again"
pip install --no-deps --no-build-isolation --editable "$root"
"$venv/bin/python" -m compileall -q "$root/harness" >/dev/null 2>&1 || true
key_of "$what" >"$venv/.stamp-$what"
rm -f "$venv/.unfinished"
say "ready after $(($(date +%s) - started)) s"
