#!/usr/bin/env bash
# Are all crates of allowed licence and origin? Uses cargo-deny, installing it once where it is missing.
# Advisories need a database from the network; they are checked where it can be had and named as skipped where not.
set -euo pipefail
command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
cargo deny check bans licenses sources
if cargo deny check advisories >/tmp/foodflow-advisories.$$ 2>&1; then
    echo "advisories ok"
elif grep -qiE 'failed to fetch|could not|network|resolve' /tmp/foodflow-advisories.$$; then
    echo "ADVISORIES SKIPPED: the advisory database cannot be fetched from here"
else
    cat /tmp/foodflow-advisories.$$
    rm -f /tmp/foodflow-advisories.$$
    exit 1
fi
rm -f /tmp/foodflow-advisories.$$
