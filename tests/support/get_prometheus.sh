#!/bin/sh
# Make sure that the tests find Prometheus and Alertmanager with their tools; Debian's packages have them.
# Installs it where that is allowed; elsewhere says why those tests will be skipped.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

if have prometheus && have promtool && have prometheus-alertmanager && have amtool; then
    exit 0
fi
missing() {
    echo "no Prometheus for the tests: $1. Install prometheus and prometheus-alertmanager, with promtool and amtool." >&2
    [ "${CI:-}" != true ] || exit 1
    echo "The tests of rules and dashboards against it will be skipped." >&2
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
echo "installing Debian's prometheus and prometheus-alertmanager; the tests start processes of their own with them"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# RUNLEVEL=1: the packages' own services need not start for us.
if ! { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    missing "apt-get could not install prometheus and prometheus-alertmanager"
fi
