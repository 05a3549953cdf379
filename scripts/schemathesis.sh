#!/usr/bin/env bash
# Asks schemathesis whether the API answers as its OpenAPI document says: no 5xx, no status, header, media type or body
# that is not described, no request without a token that is served.
#   scripts/schemathesis.sh [--examples N] [--phases LIST]   starts a hub with the demonstration plant and tests it
#   FOODFLOW_URL=http://… FOODFLOW_TOKEN=… scripts/schemathesis.sh …   tests a hub that runs (it is written to!)
set -euo pipefail
cd "$(dirname "$0")/.."
examples=50 phases=examples,coverage,fuzzing
while [ $# -gt 0 ]; do
    case $1 in
    --examples) examples=$2; shift 2 ;;
    --phases) phases=$2; shift 2 ;;
    *) echo "usage: $0 [--examples N] [--phases LIST]" >&2; exit 2 ;;
    esac
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/foodflow
python=${FOODFLOW_TEST_PYTHON:-$cache/venv-test/bin/python}
schemathesis=$(dirname "$python")/schemathesis
[ -x "$schemathesis" ] || { echo "$schemathesis is not there: run scripts/setup.sh test" >&2; exit 1; }

work=$(mktemp -d)
hub_pid=
finish() {
    [ -z "$hub_pid" ] || { kill "$hub_pid" && wait "$hub_pid"; } || true
    rm -rf "$work"
}
trap finish EXIT

if [ -z "${FOODFLOW_URL:-}" ]; then
    hub=${CARGO_TARGET_DIR:-target}/debug/foodflow-hub
    cargo build --quiet -p cloud-hub --bin foodflow-hub
    "$hub" --data-dir "$work/hub" --unsafe-no-fsync seed akron --password akron-demo-1 >/dev/null
    "$hub" --data-dir "$work/hub" --unsafe-no-fsync serve --embedded --http 127.0.0.1:0 --mqtt 127.0.0.1:0 \
        2>"$work/hub.log" &
    hub_pid=$!
    for _ in $(seq 600); do [ -f "$work/hub/ready.json" ] && break; sleep 0.1; done
    address=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$work/hub/ready.json")
    FOODFLOW_URL=http://$address
    FOODFLOW_TOKEN=$("$hub" --data-dir "$work/hub" token --tenant akron --role admin --ttl 6h)
fi

checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks+=,response_schema_conformance,ignored_auth,unsupported_method,negative_data_rejection,missing_required_header

# open_live: its answer has no end.
config=$PWD/scripts/schemathesis.toml
cd "$work"
"$schemathesis" --config-file "$config" run "$FOODFLOW_URL/api/v1/openapi.json" --url "$FOODFLOW_URL" \
    --header "Authorization: Bearer $FOODFLOW_TOKEN" \
    --checks "$checks" --phases "$phases" --max-examples "$examples" \
    --exclude-operation-id open_live \
    --no-color --workers 2 --request-timeout 30 --suppress-health-check all --generation-database none \
    --seed "${FOODFLOW_SEED:-$RANDOM}" --continue-on-failure
