#!/usr/bin/env bash
# Make a virtual environment with exactly the locked packages: scripts/venv.sh FOLDER. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "MagMoBo needs Python 3.11 or newer; $("$python" --version) was found. Name another one with PYTHON=…" >&2
    exit 1
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    . scripts/apt.sh
    apt_install python3-venv
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
echo "Installing the locked packages into $venv …"
"${pip[@]}" install --require-hashes -r requirements/dev.txt
"${pip[@]}" install --require-hashes --no-deps --no-build-isolation -r requirements/demo.txt
"${pip[@]}" install --no-deps --no-build-isolation --editable .
