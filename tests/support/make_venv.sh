#!/bin/sh
# Make the virtual environment $1 with the Python $2, or with the machine's own, and install the project into it, with
# the extras $3. An environment that is there and works is kept, whatever its Python: the Makefile has one for each.
set -eu
venv=$1
wanted=${2:-}
extras=$3
here=${0%/*}

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    if [ -n "$wanted" ]; then
        set -- "$wanted"
        said=$wanted
    else
        # The machine's own first. The names behind it are for machines whose own is older.
        set -- python3 python3.14 python3.13 python3.12 python3.11 python
        said="python3, python3.14, python3.13, python3.12, python3.11 or python"
    fi
    python=$(/bin/sh "$here/find_python.sh" "$@") || {
        echo "expected Python 3.11 or newer with its venv module, found none as $said." >&2
        echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2
        exit 1
    }
    echo "setting up $venv with $("$python" --version)"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$venv"
    else
        "$python" -m venv --clear --without-pip "$venv"
    fi
fi
# Python makes the byte code of what is imported. That of all there is would take a third of the time.
echo "installing the pinned dependencies into $venv"
if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    "$venv/bin/python" -m pip install --quiet --no-compile -c constraints.txt -e ".[$extras]"
else
    python3 -m pip --python "$venv/bin/python" install --quiet --no-compile -c constraints.txt -e ".[$extras]"
fi
