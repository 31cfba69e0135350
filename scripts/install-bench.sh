#!/usr/bin/env bash
# Install wrk, the HTTP load generator of the benchmarks, unless it is there. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/apt.sh

command -v wrk >/dev/null || {
    echo "Installing wrk (for the benchmarks only) …"
    apt_install wrk
}
# wrk -v prints its version and exits with 1.
version=$(wrk -v 2>&1 | head -n 1) || true
echo "Load generator: ${version%% Copyright*}"
