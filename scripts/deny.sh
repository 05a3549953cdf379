#!/usr/bin/env bash
# Are all crates of allowed licence and origin? Uses cargo-deny, installing it once where it is missing.
# Advisories need a database from the network: they are checked with FOODFLOW_ADVISORIES=1, as the public workflow does.
set -euo pipefail
command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
cargo deny --log-level error check bans licenses sources
if [ "${FOODFLOW_ADVISORIES:-}" = 1 ]; then
    cargo deny check advisories
else
    echo "ADVISORIES SKIPPED: set FOODFLOW_ADVISORIES=1 where the advisory database can be fetched"
fi
