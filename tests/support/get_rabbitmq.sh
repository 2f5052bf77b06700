#!/bin/sh
# Make sure that the tests find a RabbitMQ: a running one by its URL, a container engine, or Debian's program.
# Installs the program where that is allowed; elsewhere says why the integration tests will be skipped.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

if [ -n "${BROADWAY_TEST_AMQP_URL:-}" ] || have rabbitmq-server || [ -x /usr/sbin/rabbitmq-server ]; then
    exit 0
fi
missing() {
    echo "no RabbitMQ for the tests: $1. Set BROADWAY_TEST_AMQP_URL to a running one, or install rabbitmq-server." >&2
    [ "${CI:-}" != true ] || exit 1
    echo "The integration tests will be skipped." >&2
    exit 0
}
have apt-get || missing "rabbitmq-server is not installed, and this is no Debian where it could be"
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif have sudo && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    missing "rabbitmq-server is not installed, and only root could do that"
fi
echo "installing Debian's rabbitmq-server; the tests start nodes of their own with it"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# RUNLEVEL=1: the package's own service need not start for us.
if ! { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends rabbitmq-server; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    missing "apt-get could not install rabbitmq-server"
fi
