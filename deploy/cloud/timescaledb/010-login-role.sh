#!/bin/sh
# Runs once, when the database's volume is empty: gives the hub's login role a password. `foodflow-hub migrate`
# would make the role too, but without one, and over TCP nobody gets in without one.
set -eu
: "${FOODFLOW_APP_PASSWORD:?}"
# The password is read by psql from the environment, so that it is in no process list.
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password FOODFLOW_APP_PASSWORD
CREATE ROLE foodflow_app LOGIN NOINHERIT PASSWORD :'password';
SQL
