#!/bin/sh
# Make sure that the tests find an SQS: a running one by its URL, or LocalStack in an environment of its own, made by
# the Python $1. Where it cannot be installed, says why the tests of SQS will be skipped.
set -eu
python=$1
directory=.cache/localstack
needs=tests/support/localstack.txt

if [ -n "${BROADWAY_TEST_SQS_URL:-}" ] || cmp -s "$needs" "$directory/.complete"; then
    exit 0
fi
missing() {
    echo "no SQS for the tests: $1. Set BROADWAY_TEST_SQS_URL to the endpoint of a running one." >&2
    [ "${CI:-}" != true ] || exit 1
    echo "The tests of SQS will be skipped." >&2
    exit 0
}
echo "installing LocalStack into $directory; the tests start it for the length of a run"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "$python" -m venv --clear "$directory" && "$directory/bin/python" -m pip install --quiet --no-deps -r "$needs"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    missing "LocalStack could not be installed"
fi
cp "$needs" "$directory/.complete"
