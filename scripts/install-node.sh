#!/usr/bin/env bash
# Install node with npm, unless they are there, and the packages that the JavaScript client's tests need. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "Installing node and npm (for the tests of the JavaScript client only) …"
    apt_install nodejs npm
fi
major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
[ "$major" -ge 18 ] || {
    echo "node 18 or newer is needed, $(node --version) was found. Install a newer one and put it first in PATH." >&2
    exit 1
}
client=clients/js
lock=$client/package-lock.json
if ! cmp --silent "$lock" "$client/node_modules/.installed"; then
    npm ci --prefix "$client" --no-audit --no-fund --loglevel=error
    cp "$lock" "$client/node_modules/.installed"
fi
echo "Node: $(node --version)"
