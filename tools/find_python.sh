#!/bin/sh
# Prints the path of a Python that can run this project: .venv's own if there is one, else the first
# suitable one found. Looks where Debian, Homebrew, python.org, pyenv, asdf, uv and conda put them.
# Usage: find_python.sh [PYTHON]    PYTHON, if not empty, is the only candidate.
#        find_python.sh "" 3.12     only Python 3.12 is suitable, and .venv is not looked at.

wanted="$2"
if [ -n "$wanted" ]; then
    versions="$wanted"
    allowed="'%d.%d' % sys.version_info[:2] == '$wanted'"
    elsewhere="pyenv install $wanted, or uv python install $wanted"
else
    versions="3.11, 3.12 or 3.13"
    allowed="(3, 11) <= sys.version_info[:2] <= (3, 13)"
    elsewhere="make ... PYTHON=/path/to/python3.13"
fi

suitable() {
    "$1" -c "import sys; sys.exit(not ($allowed))" 2>/dev/null
}

real_path() {
    "$1" -c 'import sys; print(sys.executable)'
}

if [ -z "$wanted" ] && suitable .venv/bin/python; then
    echo .venv/bin/python
    exit 0
fi

if [ -n "$1" ]; then
    suitable "$1" && real_path "$1" && exit 0
    echo "make: PYTHON=$1 is not a Python $versions that runs. Name another one." >&2
    exit 1
fi

for candidate in python3 python3.13 python3.12 python3.11 python \
    /opt/homebrew/bin/python3.1[123] /usr/local/bin/python3.1[123] /usr/bin/python3.1[123] \
    /Library/Frameworks/Python.framework/Versions/3.1[123]/bin/python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123]*/bin/python3 \
    "${ASDF_DATA_DIR:-$HOME/.asdf}"/installs/python/3.1[123]*/bin/python3 \
    "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-3.1[123]*/bin/python3 \
    "${CONDA_PREFIX:-$HOME/miniconda3}"/bin/python3; do
    if suitable "$candidate"; then
        real_path "$candidate"
        exit 0
    fi
done

cat >&2 <<MESSAGE
make: no Python $versions was found. Install one, then run make again:
    Debian, Ubuntu    sudo apt-get install python${wanted:-3} python${wanted:-3}-venv
    macOS             brew install python@${wanted:-3.13}, or the installer from python.org
    elsewhere         $elsewhere
MESSAGE
exit 1
