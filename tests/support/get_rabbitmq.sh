#!/bin/sh
# get_rabbitmq.sh [VERSION]: make sure that the tests find a RabbitMQ.
# Without a version: a running one by its URL, or Debian's program, which is installed where that is allowed; elsewhere
# says why the integration tests will be skipped. With a version (3.10: Debian's program; 4.0, 4.3; 4: the newer of these
# that can be had, in .cache/rabbitmq-4): that one, or an error.
set -eu
version=${1:-}
here=$(dirname "$0")

have() { command -v "$1" >/dev/null 2>&1; }

if [ -n "$version" ] && [ -n "${BROADWAY_TEST_AMQP_URL:-}" ]; then
    echo "RABBITMQ=$version asks for a node of our own, BROADWAY_TEST_AMQP_URL names one of yours: leave one of them out." >&2
    exit 1
fi
case $version in
'' | 3.10) ;;
4.0 | 4.3)
    sh "$here/unpack_rabbitmq.sh" "$version" ".cache/rabbitmq-$version"
    exit 0
    ;;
4)
    for newest in 4.3 4.0; do
        status=0
        sh "$here/unpack_rabbitmq.sh" "$newest" ".cache/rabbitmq-$newest" || status=$?
        if [ "$status" -eq 0 ]; then
            ln -sfn "rabbitmq-$newest" .cache/rabbitmq-4
            exit 0
        fi
    done
    exit "$status"
    ;;
*)
    echo "expected RABBITMQ=3.10, 4.0, 4.3, or 4 for the newer of the last two that is available, got '$version'" >&2
    exit 1
    ;;
esac

missing() {
    echo "no RabbitMQ for the tests: $1. Set BROADWAY_TEST_AMQP_URL to a running one, or install rabbitmq-server." >&2
    [ "${CI:-}" != true ] && [ -z "$version" ] || exit 1
    echo "The integration tests will be skipped." >&2
    exit 0
}
installed() {
    set -- /usr/lib/rabbitmq/lib/rabbitmq_server-*
    echo "${1##*-}"
}
right_version() {
    case $(installed) in
    "$version"*) ;;
    *) echo "RABBITMQ=$version needs Debian 12: this machine has rabbitmq-server $(installed)." >&2 && exit 1 ;;
    esac
}
if [ -n "${BROADWAY_TEST_AMQP_URL:-}" ] || have rabbitmq-server || [ -x /usr/sbin/rabbitmq-server ]; then
    right_version
    exit 0
fi
have apt-get || missing "rabbitmq-server is not installed, and without Debian's apt-get it cannot be installed"
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif have sudo && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    missing "rabbitmq-server is not installed, and only root can install it"
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
right_version
