#!/bin/sh
# Print the path of a Python that can have an environment of its own: the first of the names or paths $@ that is one and
# is 3.11 or newer. `python3.13` is looked for in PATH, then among the versions of pyenv: the one that pyenv puts into
# PATH is a stand-in, and fails until somebody has chosen that version. Prints nothing, and exits 1, if there is none.
set -eu

# The path of the Python that "$1" starts, if it will do. Where it could not bring its own pip, another Python's is used.
will_do() {
    "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 1
    "$1" -c 'import ensurepip' 2>/dev/null || python3 -m pip --version >/dev/null 2>&1 || return 1
    "$1" -c 'import sys; print(sys.executable)'
}

for wanted in "$@"; do
    will_do "$wanted" && exit 0
    case $wanted in
    python3.*) ;;
    *) continue ;;
    esac
    for program in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/${wanted#python}".*/bin/"$wanted"; do
        will_do "$program" && exit 0
    done
done
exit 1
