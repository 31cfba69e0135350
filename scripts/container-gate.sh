#!/usr/bin/env bash
# Build the image of this folder, and try everything that hostile extensions try, in a container of it. Options go to `run`:
# scripts/container-gate.sh --user 0 --security-opt seccomp=docs/sandbox-seccomp.json. ENGINE names another engine.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-$(command -v podman || command -v docker || true)}
[ -n "$engine" ] || {
    echo "Neither podman nor docker was found; ENGINE=… names another one" >&2
    exit 1
}
"$engine" build --tag magmobo --file Containerfile .
exec "$engine" run --rm --network none --volume "$PWD:/magmobo:ro" --workdir /magmobo --env PYTHONPATH=/magmobo \
    --env PYTHONDONTWRITEBYTECODE=1 --entrypoint tini "$@" magmobo -- python3 -m tests.hostile.extensions.container_gate
