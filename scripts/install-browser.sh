#!/usr/bin/env bash
# Install Chromium for the browser tests, unless there is one. Safe to run again; MAG_CHROMIUM names another browser.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

browser() { command -v "${MAG_CHROMIUM:-chromium}" || command -v chromium || command -v chromium-browser; }

browser >/dev/null || {
    echo "Installing Chromium (for the browser tests only) …"
    # Chromium draws text with the system's fonts and a bare system has none.
    apt_install chromium fonts-dejavu-core
}
# The driver that comes with the Python package is a program of its own, and a bare system lacks its one library.
driver=$(echo .venv/lib/python3*/site-packages/playwright/driver/node)
[ ! -x "$driver" ] || "$driver" --version >/dev/null 2>&1 || apt_install libatomic1
path=$(browser)
version=$("$path" --version --no-sandbox 2>/dev/null) || {
    echo "$path does not run here. Install a Chromium that does, and name it with MAG_CHROMIUM=…" >&2
    exit 1
}
echo "Browser: $version"
