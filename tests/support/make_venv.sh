#!/bin/sh
# Make the virtual environment $1, with the Python $2 or the newest one found, and install the project into it.
set -eu
venv=$1
wanted=${2:-}
probe='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'

if ! "$venv/bin/python" -c "$probe" >/dev/null 2>&1; then
    python=
    for candidate in ${wanted:-python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c "$probe" >/dev/null 2>&1; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "expected Python 3.11 or newer with its venv module, found none as ${wanted:-python3.13, python3.12, python3.11, python3 or python}." >&2
        echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2
        exit 1
    fi
    echo "setting up $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
echo "installing the pinned dependencies into $venv"
"$venv/bin/python" -m pip install --quiet -c constraints.txt -e '.[all,dev]'
