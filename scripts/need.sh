#!/usr/bin/env bash
# Install programs that are missing, from the Debian packages of the same name: scripts/need.sh PROGRAM … Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

missing=()
for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ "${#missing[@]}" -gt 0 ]; then
    echo "Installing ${missing[*]} …"
    apt_install "${missing[@]}"
fi
