#!/bin/sh
# Make sure that the tests find Chromium: Debian's package.
# Installs it where that is allowed; elsewhere says why the tests of the live page will be skipped.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

if have chromium; then
    exit 0
fi
missing() {
    echo "no Chromium for the tests of the live page: $1. Install chromium." >&2
    [ "${CI:-}" != true ] || exit 1
    echo "The tests of the live page will be skipped." >&2
    exit 0
}
have apt-get || missing "it is not installed, and without Debian's apt-get it cannot be installed"
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif have sudo && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    missing "it is not installed, and only root can install it"
fi
echo "installing Debian's chromium; the tests of the live page look at it there"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    missing "apt-get could not install chromium"
fi
