#!/bin/sh
# Print the version of the Python $1 as the name of its environment has it, such as 3.13 (3.13t: without the GIL).
set -eu
python=$(sh "${0%/*}/find_python.sh" "$1") || exit 0
"$python" -c 'import sys; print("{}.{}".format(*sys.version_info) + getattr(sys, "abiflags", ""))'
