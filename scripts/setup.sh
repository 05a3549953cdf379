#!/usr/bin/env bash
# Installs what a clean machine lacks to build and run FoodFlow OS, or names exactly what to install.
#   scripts/setup.sh run    PostgreSQL server, C compiler, Node >= 20.19, libonnxruntime: enough for `make demo`
#   scripts/setup.sh bench  the same plus mosquitto and the gateway that the benches measure beside ours
#   scripts/setup.sh test   the first plus what the tests talk to: Chromium, mosquitto, Python and npm peers
# Idempotent; says nothing when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
level=${1:-run}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/foodflow

has_postgres() {
    [ -n "${FOODFLOW_PG_BIN:-}" ] && [ -x "$FOODFLOW_PG_BIN/postgres" ] && return 0
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1
}

missing=()
has_postgres || missing+=(postgresql)
command -v cc >/dev/null || missing+=(build-essential)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ "$level" = test ]; then
    command -v chromium >/dev/null || missing+=(chromium)
    command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
fi
if [ "$level" != run ]; then
    command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
fi

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ]; then as_root=()
    elif sudo -n true 2>/dev/null; then as_root=(sudo)
    else as_root=(no); fi
    if ! command -v apt-get >/dev/null || [ "${as_root[*]:-}" = no ]; then
        echo "Missing: ${missing[*]}" >&2
        echo "This user may not install packages. Ask for: apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing ${missing[*]} …" >&2
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq >&2
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

command -v cargo >/dev/null || {
    echo "Missing: Rust 1.95 or newer (cargo). Install it with rustup, then run this again." >&2
    exit 1
}

scripts/node-path.sh >/dev/null
scripts/onnxruntime.sh >/dev/null

if [ "$level" = test ] && [ ! -x "$cache/venv-test/bin/schemathesis" ]; then
    echo "Installing the Python peers of the tests …" >&2
    python3 -m venv "$cache/venv-test"
    "$cache/venv-test/bin/pip" install --quiet --disable-pip-version-check -r scripts/test-peers.txt >&2
fi

if [ "$level" = test ] && ! "$cache/venv-sparkplug/bin/python" -c 'import mqtt_spb_wrapper' 2>/dev/null; then
    echo "Installing the Sparkplug peer of the tests …" >&2
    python3 -m venv "$cache/venv-sparkplug"
    "$cache/venv-sparkplug/bin/pip" install --quiet --disable-pip-version-check -r scripts/test-peers-sparkplug.txt >&2
fi

if [ "$level" = bench ] && ! "$cache/venv-bench/bin/python" -c 'import thingsboard_gateway, pymodbus' 2>/dev/null; then
    echo "Installing the gateway of the benches …" >&2
    python3 -m venv "$cache/venv-bench"
    "$cache/venv-bench/bin/pip" install --quiet --disable-pip-version-check -r scripts/bench-peers.txt >&2
fi

# A certified OpenID provider, and MQTT clients with Node-RED: each installed from its lock file beside a copy of it,
# anew when that changes.
for name in oidc mqtt; do
    peer=$cache/peer-$name
    [ "$level" = test ] || continue
    cmp -s "cloud-hub/tests/peers/$name/package-lock.json" "$peer/installed.json" && continue
    echo "Installing the npm peers of the tests ($name) …" >&2
    rm -rf "$peer"
    mkdir -p "$peer"
    cp "cloud-hub/tests/peers/$name/"{package.json,package-lock.json,.npmrc} "$peer"
    (cd "$peer" && PATH="$("$OLDPWD/scripts/node-path.sh"):$PATH" npm ci --no-audit --no-fund --ignore-scripts --silent >&2)
    cp "$peer/package-lock.json" "$peer/installed.json"
done
