#!/bin/sh
# Write deploy/requirements.txt and deploy/requirements-build.txt anew: what the image installs and what builds its wheel,
# at the versions of constraints.txt, with the hash of every file of each on PyPI (Linux, x86_64 and aarch64 alike).
# After each change of constraints.txt or of the dependencies in pyproject.toml: sh deploy/renew_requirements.sh
set -eu
cd "$(dirname "$0")/.."
lock=.cache/lock
[ -x "$lock/bin/uv" ] || { python3 -m venv "$lock" && "$lock/bin/python" -m pip install --quiet 'uv>=0.9,<1'; }

# hashed FILE SOURCE…: the wheels alone, or there would be something to compile in the image.
hashed() {
    "$lock/bin/uv" pip compile --quiet --no-config --generate-hashes --only-binary :all: --no-annotate \
        --python-version "$(sed -n 's/^ARG PYTHON=\([0-9]*\.[0-9]*\).*/\1/p' deploy/Dockerfile)" \
        --python-platform "$platform" --custom-compile-command 'sh deploy/renew_requirements.sh' \
        --constraint constraints.txt --output-file "$@" >/dev/null
}
rm -f deploy/requirements.txt deploy/requirements-build.txt
# The second run keeps what the first has written, and fails where there is no wheel for its machine.
for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28; do
    hashed deploy/requirements.txt --extra all pyproject.toml
    sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml | hashed deploy/requirements-build.txt -
done
