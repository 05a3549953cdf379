#!/usr/bin/env bash
# Does the hub work on a server with TimescaleDB? Migrates twice, seeds, and asks `doctor` for the storage form.
#   try-database.sh timescaledb-community     (or timescaledb-apache, plain)
# The two URLs come from FOODFLOW_HUB__DATABASE__URL and FOODFLOW_HUB__DATABASE__ADMIN_URL; psql and foodflow-hub from PATH.
set -euo pipefail
cd "$(dirname "$0")"
form=${1:?storage form to expect}
: "${FOODFLOW_HUB__DATABASE__URL:?}" "${FOODFLOW_HUB__DATABASE__ADMIN_URL:?}"
password=${FOODFLOW_HUB__DATABASE__URL#*://*:}
password=${password%%@*}

# The script that the database's image runs when its volume is empty, against a server that is there already.
psql() { command psql "$FOODFLOW_HUB__DATABASE__ADMIN_URL" --no-psqlrc --quiet --no-align --tuples-only "$@"; }
psql -v ON_ERROR_STOP=1 --command "DO \$\$ BEGIN CREATE ROLE foodflow_app LOGIN NOINHERIT; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$"
FOODFLOW_APP_PASSWORD=$password psql -v ON_ERROR_STOP=1 <<'SQL'
\getenv password FOODFLOW_APP_PASSWORD
ALTER ROLE foodflow_app PASSWORD :'password';
SQL

foodflow-hub migrate
foodflow-hub migrate
foodflow-hub seed akron --password "$(openssl rand -hex 12)" >/dev/null
foodflow-hub doctor
foodflow-hub doctor --json | python3 -c '
import json, sys
tenants = {row["tenant"]: row["storage_form"] for row in json.load(sys.stdin)["tenants"]}
expected = sys.argv[1]
assert tenants and set(tenants.values()) == {expected}, f"expected {expected}, got {tenants}"
' "$form"
# The login role alone must read nothing of a tenant.
if command psql "$FOODFLOW_HUB__DATABASE__URL" --no-psqlrc --quiet --command 'SELECT count(*) FROM t_akron.lot' >/dev/null 2>&1; then
    echo "the login role reads a tenant without having become it" >&2
    exit 1
fi
echo "the hub's schema stands on $form"
