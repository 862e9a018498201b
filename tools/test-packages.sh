#!/bin/sh
# Installs the Debian packages that only tests need before there is a cluster: Redis, and what makes the image whose
# promtool checks the rules.
#
# redis-tools and not redis-server: its redis-check-rdb is the whole server under another name, and no service comes
# with it. Where something cannot be installed nothing is refused: those tests then skip with their reason, or fail
# with CI=true.
set -eu

say() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null; }

lacking() { # the packages whose programs are not there
    has redis-server || has redis-check-rdb || echo redis-tools
    has mmdebstrap || echo mmdebstrap
}

wanted=$(lacking | xargs)
[ -n "$wanted" ] || exit 0
if ! has apt-get || [ "$(id -u)" != 0 ]; then
    say "not installed: $wanted; that takes root and apt-get, so the tests that need them will not run"
    exit 0
fi
say "installing for the tests: $wanted (no service is started)"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # one word for each package
install() { apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends --no-remove $wanted >/dev/null; }
install 2>/dev/null || { apt-get update -qq >/dev/null && install; } || true
wanted=$(lacking | xargs)
[ -z "$wanted" ] || say "apt-get could not install $wanted; the tests that need them will not run"
