#!/usr/bin/env bash
# Does docker-compose.yml come up and carry a reading from the simulated PLC to the API? Needs a container engine.
# Makes `.env` with random passwords unless there is one; leaves everything running (`docker compose down` ends it).
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${TRY_MINUTES:-5}
hub=http://127.0.0.1:${FOODFLOW_HTTP_PORT:-8080}

if [ ! -e .env ]; then
    (umask 077 && while IFS= read -r line; do
        [[ $line =~ ^[A-Z_]+=$ ]] && line+=$(openssl rand -hex 24)
        printf '%s\n' "$line"
    done <.env.example >.env)
fi

# Repeats a command until it succeeds or time is up.
until_true() {
    local what=$1 deadline=$((SECONDS + minutes * 60))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "not within $minutes minutes: $what" >&2; return 1; }
        sleep 1
    done
    echo "ok  $what"
}

docker compose up --build --detach
docker compose run --rm -T admin seed akron >/dev/null
until_true "the hub takes traffic" curl --fail --silent "$hub/ready"
code=$(docker compose exec -T hub foodflow-hub enroll-code --tenant akron --edge akron-1)
# Not repeated: a code works once, and the hub slows down whoever guesses.
docker compose exec -T edge enroll http://hub:8080 "$code"

token=$(docker compose exec -T hub foodflow-hub token --tenant akron --role supervisor --ttl 1h)
get() { curl --fail --silent --show-error --header "Authorization: Bearer $token" "$hub/api/v1/$1"; }
has_reading() { get 'plant-ops/tags?name=TT-101' | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["items"][0]["last"])'; }
has_hold() { get 'fsq/holds?status=open' | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["items"])'; }
has_verdict() { get 'vision/results' | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["items"])'; }
scrapes() {
    docker compose exec -T prometheus wget -q -O - 'http://127.0.0.1:9090/api/v1/query?query=up' \
        | python3 -c 'import json, sys; rows = json.load(sys.stdin)["data"]["result"]; sys.exit(not (len(rows) == 3 and all(row["value"][1] == "1" for row in rows)))'
}

until_true "register → API" has_reading
until_true "frame → verdict" has_verdict
docker compose exec -T simulator http-ok 127.0.0.1 9190 '/scenario/f2?seconds=20' POST
until_true "CCP dip → held lot" has_hold
until_true "Prometheus sees hub, edge and itself" scrapes
until_true "Grafana serves the dashboard" curl --fail --silent --user "admin:$(sed -n 's/^GRAFANA_ADMIN_PASSWORD=//p' .env)" \
    "http://127.0.0.1:${GRAFANA_PORT:-3000}/api/dashboards/uid/foodflow"
